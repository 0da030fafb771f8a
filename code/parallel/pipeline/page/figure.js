/* code/parallel/pipeline/page/figure.js: from chapters/05-pipeline-pictures-page.md. Edit the chapter, or edit here and run "make untangle". */
// The interactive figure of chapter 5. pipelineWasm, before this text, is the module that
// build.sh made, as base64: a page from a disk may not fetch anything, not even that.
(function () {
  "use strict";
  var place = document.querySelector('[data-program="pipeline"]');
  if (!place) return;
  /* start the module */
  var still = place.parentNode.querySelector(".picture");
  function explain(text) {
    place.textContent = text;
    place.hidden = false;
  }
  if (!pipelineWasm)
    return explain("This copy was woven without clang: the figure stands still.");
  if (typeof WebAssembly !== "object")
    return explain("This browser runs no WebAssembly: the figure stands still.");
  var bytes = Uint8Array.from(atob(pipelineWasm), function (c) { return c.charCodeAt(0); });
  WebAssembly.instantiate(bytes, {}).then(function (made) { begin(made.instance.exports); },
    function (error) { explain("The figure could not start: " + error.message); });

  /* make an element */
  function make(tag, attributes, children) {
    var element = document.createElement(tag);
    Object.keys(attributes || {}).forEach(function (key) {
      element.setAttribute(key, attributes[key]);
    });
    (children || []).forEach(function (child) { element.append(child); });
    return element;
  }

  /* make the fields */
  var fields = {};
  function field(key, label, attributes) {
    attributes.id = "pipeline-" + key;
    fields[key] = make(attributes.type ? "input" : "select", attributes);
    return make("label", { for: attributes.id }, [label + " ", fields[key]]);
  }
  function number(key, label, value, most) {
    return field(key, label, { type: "number", min: 1, max: most, value: value });
  }
  function cost(key, label, value) {
    return field(key, label, { type: "text", size: 4, value: value, autocomplete: "off" });
  }
  var orders = make("textarea", { rows: 6, spellcheck: "false", wrap: "off",
                                  "aria-label": "The orders, a line per rank" });
  var status = make("p", { class: "words", role: "status" });
  var drawing = make("div", { class: "drawing" });
  var form = make("form", { "aria-label": "A schedule of your choice" }, [
    field("name", "schedule", {}), number("stages", "ranks", 4, 64),
    number("microbatches", "micro-batches", 8, 1024), number("chunks", "chunks", "", 16),
    cost("F", "F", "1"), cost("I", "I", "1"), cost("W", "W", "1"), cost("hop", "hop", "0"),
    cost("overlap-cost", "pair", ""), cost("limit", "memory limit", "")]);
  var own = make("details", {}, [make("summary", {}, ["The orders, to be changed"]),
                                 orders]);

  /* compose the words */
  function words() {
    var v = function (key) { return fields[key].value.trim().replace(/\s+/g, ""); };
    var costs = [v("F"), v("I"), v("W")].concat(v("hop") === "0" ? [] : [v("hop")]);
    var text = v("name");
    if (text !== "own")
      text += " --stages " + v("stages") + " --microbatches " + v("microbatches");
    if (v("chunks") && !fields.chunks.disabled) text += " --chunks " + v("chunks");
    if (costs.join() !== "1,1,1") text += " --cost " + costs.join();
    if (v("overlap-cost")) text += " --overlap-cost " + v("overlap-cost");
    if (v("limit")) text += " --limit " + v("limit");
    return text;
  }

  /* read the address */
  function toAddress(text) {
    return "#try=" + encodeURIComponent(text).replace(/%20/g, "+");
  }
  function fromAddress() {
    var found = /^#try=(.*)$/.exec(location.hash);
    if (!found) return null;
    try { return decodeURIComponent(found[1].replace(/\+/g, " ")); }
    catch (e) { return null; }
  }
  function fill(text) {
    var lines = text.split("\n"), list = lines[0].split(" ");
    fields.name.value = list[0];
    for (var i = 1; i + 1 < list.length; i += 2) {
      var key = list[i].slice(2), costs = list[i + 1].split(",");
      if (key === "cost")
        ["F", "I", "W", "hop"].forEach(function (k, j) {
          fields[k].value = costs[j] || "0";
        });
      else if (fields[key]) fields[key].value = list[i + 1];
    }
    if (lines.length > 1) orders.value = lines.slice(1).join("\n");
  }

  /* ask the module */
  var SVG = 0, MESSAGE = 2, CSV = 3, LIST = 4;
  function ask(module, text, width) {
    var sent = new TextEncoder().encode(text), at = module.page_words(sent.length);
    new Uint8Array(module.memory.buffer, at, sent.length).set(sent);
    return module.page_show(sent.length, width) === 0;
  }
  function answer(module, what) {
    return new TextDecoder().decode(new Uint8Array(
      module.memory.buffer, module.page_text(what), module.page_size(what)));
  }

  /* show the answer */
  function show(module) {
    var text = words(), yours = fields.name.value === "own";
    var width = Math.max(300, Math.min(1600, drawing.clientWidth || 900));
    var sent = yours ? text + "\n" + orders.value : text;
    var good = ask(module, sent, Math.floor(width));
    status.classList.toggle("refused-words", !good);
    drawing.classList.toggle("pale", !good);
    status.textContent = !good ? answer(module, MESSAGE)
      : "dls schedule " + (yours ? text.replace("own", "your.csv") : text);
    if (good) {
      drawing.innerHTML = answer(module, SVG);
      if (!yours) orders.value = answer(module, CSV);
    }
    try { history.replaceState(null, "", toAddress(sent)); } catch (e) { /* not allowed */ }
  }

  /* bring the figure to life */
  function choose(list) {
    var entry = list.find(function (e) { return e.name === fields.name.value; });
    fields.stages.disabled = fields.microbatches.disabled = !entry;
    fields.chunks.disabled = !entry || entry.chunks > 0;
    fields.chunks.placeholder = entry && entry.chunks ? entry.chunks : "2";
  }
  function fillFromAddress(list, first) {
    var text = fromAddress();
    if (text !== null || first) fill(text === null ? "zb-h1 --stages 4" : text);
    if (!fields.name.value) fields.name.value = list[0].name;
    own.open = own.open || fields.name.value === "own";
  }
  function begin(module) {
    ask(module, "", 0);
    var list = JSON.parse(answer(module, LIST)), waiting = false;
    list.forEach(function (e) {
      fields.name.append(make("option", { value: e.name }, [e.name + ": " + e.summary]));
    });
    fields.name.append(make("option", { value: "own" }, ["your own orders, below"]));
    function draw() {
      waiting = false;
      choose(list);
      show(module);
    }
    function later() {
      if (!waiting) requestAnimationFrame(draw);
      waiting = true;
    }
    /* listen to the reader */
    form.addEventListener("submit", function (event) { event.preventDefault(); });
    form.addEventListener("input", later);
    orders.addEventListener("input", function () { fields.name.value = "own"; later(); });
    addEventListener("resize", later);
    addEventListener("hashchange", function () {
      fillFromAddress(list, false);
      later();
    });
    place.append(form, status, drawing, own);
    place.hidden = false;
    still.hidden = true;
    fillFromAddress(list, true);
    if (fromAddress() !== null) place.scrollIntoView();
    draw();
  }
})();
