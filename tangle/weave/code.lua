-- Code blocks: chunks, files, runs and the rest, with their headings, links and small print.
-- Pandoc's highlighter (skylighting) is the tokeniser for all formats: every block of a chapter
-- goes through it once, as HTML, and the tokens are taken from there. HTML and LaTeX are then made
-- from the same tokens, so that both colour the same words, under every version of Pandoc.

local here = PANDOC_SCRIPT_FILE:match("^(.*/)") or "./"
local lib = dofile(here .. "lib.lua")
local M = {}

local syntax = { c = "c", cuda = "c", cpp = "cpp", yaml = "yaml", sh = "bash", make = "makefile", lua = "lua",
                 js = "javascript", json = "json" }

-- Words that skylighting's C does not know.
local cuda_words = {}
for word in ([[__global__ __device__ __host__ __shared__ __constant__ __restrict__ __launch_bounds__ __forceinline__
               __syncthreads __syncwarp threadIdx blockIdx blockDim gridDim warpSize constexpr template typename
               namespace using class auto nullptr static_cast reinterpret_cast bool true false dim3]]):gmatch("%S+") do
  cuda_words[word] = true
end

-- skylighting's classes, gathered to the few that a reader can tell apart.
local classes = {
  kw = "kw", cf = "kw", im = "pp", pp = "pp", dt = "ty", ot = "pp", at = "at", fu = "fu", bu = "fu", ex = "fu",
  va = "va", cn = "nu", dv = "nu", bn = "nu", fl = "nu", ch = "st", sc = "st", st = "st", vs = "st", ss = "st",
  co = "co", ["do"] = "co", an = "co", cv = "co", ["in"] = "co", al = "al", wa = "al", er = "", op = "",
}

local function lines_of(text)
  local lines = {}
  for line in (text .. "\n"):gmatch("([^\n]*)\n") do lines[#lines + 1] = line end
  return lines
end

local function reference_of(line) return line:match("^(%s*)<<([%w_-]+)>>%s*$") end

local function language_of(block)
  for _, class in ipairs(block.classes) do
    if syntax[class] then return class end
  end
  return nil
end

local highlighted = {}
local function key_of(language, text) return (syntax[language or ""] or "") .. "\0" .. text end

local function tokens_of_line(html)
  local tokens, at = {}, 1
  local function plain(text)
    if text ~= "" then tokens[#tokens + 1] = { "", lib.unhtml((text:gsub("<[^>]*>", ""))) } end
  end
  while true do
    local from, to, class, text = html:find('<span class="(%a+)">(.-)</span>', at)
    if not from then break end
    plain(html:sub(at, from - 1))
    tokens[#tokens + 1] = { classes[class] or "", lib.unhtml((text:gsub("<[^>]*>", ""))) }
    at = to + 1
  end
  plain(html:sub(at))
  return tokens
end

-- Highlighting is more than half of the weave's time, and most blocks are as they were: what the
-- highlighter said of them is kept beside the page (build/book/highlight/ID.lua), for all formats.
local function kept(path)
  local chunk = path and loadfile(path)
  local cache = chunk and chunk()
  return cache and cache.pandoc == tostring(PANDOC_VERSION) and cache.blocks or {}
end

function M.highlight(W, doc, cache_path)
  -- Blank lines at either end of a block part the chunks of the tangled file; here they are air.
  doc.blocks = doc:walk { CodeBlock = function(b)
    b.text = b.text:gsub("^[ \t]*\n", ""):gsub("%s+$", "")
    return b
  end }.blocks
  local before, now = kept(cache_path), {}
  local blocks, order, new = {}, {}, false
  doc:walk { CodeBlock = function(b)
    local language = language_of(b)
    local key = key_of(language, b.text)
    if not language or now[key] then return end
    now[key] = before[key] or ""
    if now[key] ~= "" then return end
    local lines = lines_of(b.text)
    for i, line in ipairs(lines) do
      local indent = reference_of(line)
      if indent then lines[i] = indent .. "weavereference" end
    end
    order[#order + 1] = key
    blocks[#blocks + 1] = pandoc.CodeBlock(table.concat(lines, "\n"), pandoc.Attr("", { syntax[language] }))
  end }
  if #blocks > 0 then
    local html, at = pandoc.write(pandoc.Pandoc(blocks), "html"), 1
    for _, key in ipairs(order) do
      local _, stop, body = html:find("<pre[^>]*><code[^>]*>(.-)</code></pre>", at)
      if not stop then break end
      at = stop + 1
      now[key] = body
    end
  end
  for key in pairs(before) do new = new or not now[key] end
  if cache_path and (new or #blocks > 0) then
    lib.write_file(cache_path, lib.to_lua { pandoc = tostring(PANDOC_VERSION), blocks = now }, "." .. W.format)
  end
  for key, body in pairs(now) do
    local lines = {}
    for line in (body .. "\n"):gmatch("([^\n]*)\n") do
      line = line:gsub('^<span id="cb[%w-]+"><a [^>]*></a>', ""):gsub("</span>$", "", 1)
      lines[#lines + 1] = tokens_of_line(line)
    end
    local _, wanted = key:gsub("\n", "")
    if #lines > wanted then highlighted[key] = lines end
  end
end

local function tokens_for(block_language, text)
  local lines = highlighted[key_of(block_language, text)]
  if lines then return lines end
  lines = lines_of(text)
  for i, line in ipairs(lines) do lines[i] = { { "", line } } end
  return lines
end

-- HTML ----------------------------------------------------------------------------------------

local function html_words(W, text, class, language, own)
  local function span(s, c)
    if c == "" then return lib.html(s) end
    return '<span class="' .. c .. '">' .. lib.html(s) .. "</span>"
  end
  if class == "st" then return span(text, class) end
  if not text:find("[%a_]") then return span(text, class) end
  local out, at = {}, 1
  while true do
    local from, to = text:find("[%a_][%w_]*", at)
    if not from then break end
    local word = text:sub(from, to)
    local known = W.dep.identifiers[word]
    if known then
      if from > at then out[#out + 1] = span(text:sub(at, from - 1), class) end
      if own[known.anchor] then out[#out + 1] = '<b class="definition">' .. lib.html(word) .. "</b>"
      else out[#out + 1] = W.raw_link(lib.html(word), known.id, known.anchor, "identifier") end
      at = to + 1
    elseif language == "cuda" and class == "" and cuda_words[word] then
      if from > at then out[#out + 1] = span(text:sub(at, from - 1), class) end
      out[#out + 1] = span(word, "kw")
      at = to + 1
    else
      local next_at = to + 1
      -- Nothing to mark: let it join what follows.
      local more, more_to = text:find("[%a_][%w_]*", next_at)
      while more and not W.dep.identifiers[text:sub(more, more_to)]
            and not (language == "cuda" and class == "" and cuda_words[text:sub(more, more_to)]) do
        next_at = more_to + 1
        more, more_to = text:find("[%a_][%w_]*", next_at)
      end
      out[#out + 1] = span(text:sub(at, next_at - 1), class)
      at = next_at
    end
  end
  if at <= #text then out[#out + 1] = span(text:sub(at), class) end
  return table.concat(out)
end

local function chunk_link_html(W, name)
  local chunk = W.dep.chunks[name]
  local title = "⟨" .. lib.html(lib.chunk_title(name))
  if not chunk and W.quoting then return "⟨" .. lib.html(lib.chunk_title(name)) .. "⟩" end
  if not chunk then return '<span class="missing">' .. title .. "⟩</span>" end
  local first = chunk.parts[1]
  return W.raw_link(title .. (first.section ~= "" and ' <small>' .. lib.html(first.section) .. "</small>" or "") .. "⟩",
    first.id, first.anchor, "chunk-ref")
end

local function html_code(W, block_language, text, own)
  local source, out = lines_of(text), {}
  for i, tokens in ipairs(tokens_for(block_language, text)) do
    local indent, name = reference_of(source[i] or "")
    if name then
      out[i] = indent .. chunk_link_html(W, name)
    else
      local parts = {}
      for _, token in ipairs(tokens) do
        parts[#parts + 1] = html_words(W, token[2], token[1], block_language, own or {})
      end
      out[i] = table.concat(parts)
    end
  end
  return table.concat(out, "\n")
end

local function pre(W, block_language, text, own, class)
  return '<pre tabindex="0" class="code' .. (class and " " .. class or "") .. '"><code>'
    .. html_code(W, block_language, text, own) .. "</code></pre>"
end

-- LaTeX ---------------------------------------------------------------------------------------

local tex_style = { kw = "K", ty = "T", pp = "P", st = "S", co = "C", nu = "N", al = "A", at = "T", va = "V" }
local columns = 90

-- Places where a word may be broken at the end of a line, without a hyphen.
local breaks_after = {}
for c in ("/.,:=(_;|-"):gmatch(".") do breaks_after[c] = true end

function M.breakable(text)
  if #text <= 10 then return (lib.tex_code(text):gsub(" ", "\\ ")) end
  local out, n, length, before = {}, 0, utf8.len(text) or #text, ""
  for c in text:gmatch(utf8.charpattern) do
    n = n + 1
    if n > 4 and n < length - 2 and before:match("%l") and c:match("^%u") then out[#out + 1] = "\\allowbreak{}" end
    before = c
    out[#out + 1] = c == " " and "\\ \\allowbreak{}" or lib.tex_code(c)
    -- Not within three characters of either end.
    if breaks_after[c] and n > 2 and n < length - 2 then out[#out + 1] = "\\allowbreak{}" end
  end
  return table.concat(out)
end

local function tex_text(text, breaks)
  if not breaks then return (lib.tex_code(text):gsub(" ", "\\ ")) end
  -- \x: a space where the line may be broken; \y: a break without a space.
  local out, run = {}, 0
  for c in text:gmatch(utf8.charpattern) do
    run = run + 1
    if c == " " then out[#out + 1], run = "\\x{}", 0
    else
      out[#out + 1] = lib.tex_code(c)
      if breaks_after[c] or run % 16 == 0 then out[#out + 1] = "\\y{}" end
    end
  end
  return table.concat(out)
end

local function tex_line(W, tokens, source)
  local indent, name = reference_of(source)
  if name then
    local chunk = W.dep.chunks[name]
    local first = chunk and chunk.parts[1]
    local title = lib.tex(lib.chunk_title(name))
    local body = first and string.format("\\dlsuse{%s}{%s}", W.tex_label(first.id, first.anchor), title)
      or "\\dlschunk{" .. title .. "}"
    return string.format("\\L{%s}{%s}", ("\\ "):rep(#indent), body)
  end
  local length = utf8.len(source) or #source
  local breaks = length > columns
  local out, started = {}, false
  local spaces = source:match("^ *")
  for _, token in ipairs(tokens) do
    local class, text = token[1], token[2]
    if not started and breaks then
      -- Indentation of a line to be broken is the hanging indentation's business.
      text = text:gsub("^ +", "")
    end
    if text ~= "" then
      started = true
      local body = tex_text(text, breaks)
      local style = text:find("%S") and tex_style[class]
      out[#out + 1] = style and "\\" .. style .. "{" .. body .. "}" or body
    end
  end
  if breaks then return string.format("\\B{%d}{%s}", math.min(#spaces, 40), table.concat(out)) end
  return "\\L{}{" .. table.concat(out) .. "}"
end

local function tex_code(W, block_language, text)
  text = text:gsub("\t", "    ")
  local source, out = lines_of(text), {}
  local lines = tokens_for(block_language, text)
  local n = #lines
  for i, tokens in ipairs(lines) do
    for _, token in ipairs(tokens) do token[2] = token[2]:gsub("\t", "    ") end
    out[i] = tex_line(W, tokens, source[i] or "")
    -- The first two and the last two lines of a block stay together.
    if i == 1 and n > 1 or i == n - 1 then out[i] = out[i] .. "\\nopagebreak" end
  end
  return table.concat(out, "\n")
end

-- Chunks and files ------------------------------------------------------------------------------

local function section_link(W, part, text, class)
  local title = part.section ~= "" and part.section or part.id
  return W.raw_link(text or lib.html(title), part.id, part.anchor, class)
end

local function use_name(use)
  if use.file then return '<code>' .. lib.html(use.file) .. "</code>" end
  return "⟨" .. lib.html(lib.chunk_title(use.chunk)) .. "⟩"
end

local function tex_use(use)
  local name = use.file and "\\dlscode{" .. M.breakable(use.file) .. "}"
    or "\\dlschunk{" .. lib.tex(lib.chunk_title(use.chunk)) .. "}"
  return string.format("\\dlsat{%s}{%s}", name, use.anchor)
end

local function joined(list)
  if #list <= 1 then return list[1] or "" end
  return table.concat(list, ", ", 1, #list - 1) .. " and " .. list[#list]
end

-- A third of the code is tests. The pages have it; on paper it would be a third of the paper, so
-- there a test is a name, a number of lines and the file where it stands.
local function test_file(dep, name, seen)
  local chunk = dep.chunks[name]
  local file = nil
  if not chunk or seen[name] then return nil end
  seen[name] = true
  for _, use in ipairs(chunk.uses) do
    local path = use.file or test_file(dep, use.chunk, seen)
    if not path or not path:match("^tests/") then return nil end
    file = file or path
  end
  return file
end

local function tex_test(b, anchor, title, path)
  local _, lines = b.text:gsub("\n", "")
  return string.format("\\begin{dlslisting}\\dlshead{%s}{%s}\n\\dlsfoot{%d lines of \\dlscode{%s}.}\\end{dlslisting}",
    anchor, title, lines + 1, M.breakable(path))
end

local function chunk_block(W, b)
  local name, dep = b.identifier, W.dep
  local chunk = dep.chunks[name]
  local part = tonumber(b.attributes["weave-part"]) or 1
  local k = chunk and chunk.here[part] or part
  local anchor = lib.chunk_anchor(name, k)
  local previous = chunk and chunk.parts[k - 1]
  local next_part = chunk and chunk.parts[k + 1]
  local first = chunk and chunk.parts[1]
  local uses = chunk and chunk.uses or {}
  local title = lib.chunk_title(name)
  local relation = k == 1 and "≡" or "+≡"
  local test = W.latex and test_file(dep, name, {})
  if test then return tex_test(b, anchor, "\\dlschunk{" .. lib.tex(title) .. "}", test) end
  if W.latex then
    local foot = {}
    if k == 1 and #uses > 0 then
      local list = {}
      for _, use in ipairs(uses) do list[#list + 1] = tex_use(use) end
      foot[#foot + 1] = "Used in " .. joined(list) .. "."
    end
    if previous and k > 1 then foot[#foot + 1] = "\\dlsat{Begins}{" .. first.anchor .. "}." end
    if next_part then foot[#foot + 1] = "\\dlsat{Continues}{" .. next_part.anchor .. "}." end
    return string.format("\\begin{dlslisting}\\dlshead{%s}{\\dlschunk{%s} \\dlsrel{%s}}\n%s\n\\dlsfoot{%s}\\end{dlslisting}",
      anchor, lib.tex(title), k == 1 and "" or "+", tex_code(W, language_of(b), b.text), table.concat(foot, " "))
  end
  local line = chunk and chunk.lines and chunk.lines[part]
  local head = { '<div class="head"', line and ' title="' .. lib.html(line.file .. ", line " .. line.line) .. '"' or "",
    '><a class="name" href="#', lib.html(anchor), '">⟨', lib.html(title), '⟩</a> <span class="relation">', relation, "</span>" }
  if previous or next_part then
    head[#head + 1] = '<span class="parts">'
    if previous then
      head[#head + 1] = section_link(W, previous,
        '<span aria-hidden="true">▲</span> <span class="word">previous part</span>', "previous")
    end
    if next_part then
      head[#head + 1] = section_link(W, next_part,
        '<span aria-hidden="true">▼</span> <span class="word">next part</span>', "next")
    end
    head[#head + 1] = "</span>"
  end
  head[#head + 1] = "</div>"
  local foot = {}
  if #uses > 0 then
    local list = {}
    for _, use in ipairs(uses) do
      list[#list + 1] = W.raw_link(use_name(use) .. (use.section ~= "" and " <small>" .. lib.html(use.section) .. "</small>" or ""),
        use.id, use.anchor, "use")
    end
    foot[#foot + 1] = "Used in " .. joined(list) .. "."
  end
  if chunk and #chunk.parts > 1 then
    local list = {}
    for i, p in ipairs(chunk.parts) do
      local text = i .. (p.section ~= "" and " <small>(" .. lib.html(p.section) .. ")</small>" or "")
      list[#list + 1] = i == k and "<b>" .. text .. "</b>" or W.raw_link(text, p.id, p.anchor)
    end
    foot[#foot + 1] = "Part " .. joined(list) .. "."
  end
  return '<div class="chunk" id="' .. lib.html(anchor) .. '">' .. table.concat(head)
    .. pre(W, language_of(b), b.text, { [anchor] = true })
    .. (#foot > 0 and '<div class="foot">' .. table.concat(foot, " ") .. "</div>" or "") .. "</div>"
end

local function root_block(W, b)
  local path = b.attributes.file
  local anchor = lib.file_anchor(path)
  if W.latex and path:match("^tests/") then
    return tex_test(b, anchor, "\\dlsfile{" .. M.breakable(path) .. "}", path)
  end
  if W.latex then
    return string.format("\\begin{dlslisting}\\dlshead{%s}{\\dlsfile{%s}}\n%s\n\\dlsfoot{}\\end{dlslisting}",
      anchor, M.breakable(path), tex_code(W, language_of(b), b.text))
  end
  local root = W.dep.roots[path]
  return '<div class="chunk file" id="' .. lib.html(anchor) .. '"><div class="head"'
    .. (root and ' title="' .. lib.html(root.file .. ", line " .. root.line) .. '"' or "")
    .. '><span class="kind">file</span> <a class="name" href="#' .. lib.html(anchor) .. '"><code>' .. lib.html(path)
    .. "</code></a></div>" .. pre(W, language_of(b), b.text, { [anchor] = true }) .. "</div>"
end

-- Runs ----------------------------------------------------------------------------------------

-- What a terminal would have left on the screen: no colours, and of a line rewritten in place the end.
local function terminal(text)
  text = text:gsub("\27%[[%d;?]*%a", ""):gsub("\r\n", "\n"):gsub("[^\n]*\r([^\n])", "%1"):gsub("\r", "")
  text = text:gsub("[\0-\8\11-\31\127]", "\u{fffd}"):gsub("%s+$", "")
  if not utf8.len(text) then text = text:gsub("[\128-\255]", "\u{fffd}") end
  return text
end

local compared = { exact = "the book is only made when it is exactly this",
                   words = "the numbers depend on the machine; the words are checked" }

local function run_block(W, b)
  local id = b.identifier
  local run = W.dep.runs[id] or { status = "missing" }
  local anchor = "run-" .. id
  local missing = run.status == "missing" or not run.output
  local notes = {}
  if not missing then
    notes[#notes + 1] = "Output" .. (run.machine and " on " .. run.machine or "") .. (run.date and ", " .. run.date or "")
    if run.exit and tonumber(run.exit) ~= 0 then notes[#notes] = notes[#notes] .. "; exit status " .. run.exit end
    if run.how then
      notes[#notes] = notes[#notes] .. "; "
        .. (compared[run.how] or "the numbers are checked to within " .. run.how .. ", relatively")
    end
    notes[#notes] = notes[#notes] .. "."
    if run.status == "stale" then notes[#notes + 1] = "The command or the program has changed since." end
  end
  local small = table.concat(notes, " ")
  local output = terminal(missing and run.expect or run.output or "")
  if W.latex then
    local parts = { "\\begin{dlslisting}\\dlsrunhead{" .. anchor .. "}\n" .. tex_code(W, "sh", b.text) .. "\n" }
    if missing then
      parts[#parts + 1] = "\\dlsnote{Not yet run." .. (output ~= "" and " Expected:" or "") .. "}\n"
    else
      parts[#parts + 1] = "\\dlsgap\n"
    end
    if output ~= "" then parts[#parts + 1] = tex_code(W, nil, output) .. "\n" end
    parts[#parts + 1] = "\\dlsfoot{" .. lib.tex(small) .. "}\\end{dlslisting}"
    return table.concat(parts)
  end
  local parts = { '<div class="run' .. (missing and " not-yet" or "") .. '" id="' .. lib.html(anchor) .. '">',
    '<div class="head"><span class="kind">command</span></div>', pre(W, "sh", b.text, nil, "command") }
  if missing then
    parts[#parts + 1] = '<p class="not-run"><strong>Not yet run.</strong> '
      .. (output ~= "" and "Expected:" or "Its output appears here once the book’s commands have been run.") .. "</p>"
  end
  if output ~= "" then
    parts[#parts + 1] = '<pre tabindex="0" class="code output"><samp>' .. lib.html(output) .. "</samp></pre>"
  end
  if small ~= "" then parts[#parts + 1] = '<div class="foot">' .. lib.html(small) .. "</div>" end
  parts[#parts + 1] = "</div>"
  return table.concat(parts)
end

-- The rest --------------------------------------------------------------------------------------

local function fails_block(W, b)
  local match = b.attributes.match or ""
  if W.latex then
    return "\\begin{dlslisting}\\dlsplainhead{\\dlsrefused}\n" .. tex_code(W, language_of(b), b.text)
      .. "\n\\dlsfoot{The compiler says: " .. lib.tex("“" .. match .. "”") .. "}\\end{dlslisting}"
  end
  return '<div class="refused"><div class="head"><span class="kind">does not compile</span></div>'
    .. pre(W, language_of(b), b.text)
    .. '<div class="foot">The compiler says: “' .. lib.html(match) .. "”</div></div>"
end

local function quote_block(W, b)
  if W.latex then
    return "\\begin{dlslisting}\\dlsplainhead{}\n" .. tex_code(W, language_of(b), b.text) .. "\n\\dlsfoot{}\\end{dlslisting}"
  end
  return '<div class="quoted">' .. pre(W, language_of(b), b.text) .. "</div>"
end

function M.block(W, b)
  local fate = b.attributes["weave-fate"]
  local source
  W.quoting = fate ~= "chunk" and fate ~= "root"
  if fate == "chunk" then source = chunk_block(W, b)
  elseif fate == "root" then source = root_block(W, b)
  elseif fate == "run" then source = run_block(W, b)
  elseif fate == "expect" then return {}   -- shown by its run, until that has an output of its own
  elseif fate == "solution" then return {} -- kept for appendix E
  elseif fate == "fails" then source = fails_block(W, b)
  else source = quote_block(W, b) end
  return pandoc.RawBlock(W.latex and "latex" or "html", source)
end

return M
