/* tests/parallel/peer_page.js: from chapters/05-pipeline-pictures-tests.md. Edit the chapter, or edit here and run "make untangle". */
// peer_page.js MODULE REQUESTS: for each line of REQUESTS the module's JSON or refusal.
const fs = require("fs");
const module_ = new WebAssembly.Module(fs.readFileSync(process.argv[2]));
const page = new WebAssembly.Instance(module_, {}).exports;

function answer(words) {
  const sent = Buffer.from(words), at = page.page_words(sent.length);
  new Uint8Array(page.memory.buffer, at, sent.length).set(sent);
  const what = page.page_show(sent.length, 960) ? 2 : 1;
  const text = new Uint8Array(page.memory.buffer, page.page_text(what),
                              page.page_size(what));
  return Buffer.from(text).toString().trimEnd() + "\n";
}
for (const line of fs.readFileSync(process.argv[3], "utf8").trimEnd().split("\n"))
  process.stdout.write(answer(line));
