// Theme, contents on small screens, search. The pages are complete without it.
// Works from file:// : nothing is fetched; the search loads lunr and the text as scripts.
(function () {
  "use strict";
  var root = document.documentElement;
  var self = document.currentScript;
  root.classList.add("scripted");

  // Theme: the system's until the reader chooses; then kept.
  function dark() {
    var chosen = root.dataset.theme;
    return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }
  document.querySelector("button.theme").addEventListener("click", function () {
    var theme = dark() ? "light" : "dark";
    root.dataset.theme = theme;
    try { localStorage.setItem("theme", theme); } catch (e) { /* not allowed: lasts for this page */ }
  });

  // Contents: on a small screen the sidebar opens over the text.
  var menu = document.querySelector(".menu"), sidebar = document.getElementById("sidebar");
  menu.setAttribute("role", "button");
  menu.setAttribute("aria-expanded", "false");
  function openContents(open) {
    sidebar.classList.toggle("open", open);
    menu.setAttribute("aria-expanded", String(open));
  }
  menu.addEventListener("click", function (event) {
    event.preventDefault();
    openContents(!sidebar.classList.contains("open"));
  });
  sidebar.addEventListener("click", function (event) {
    if (event.target.closest("a")) openContents(false);
  });

  // The section being read is marked in the sidebar.
  var entries = {};
  sidebar.querySelectorAll("li ul a").forEach(function (a) { entries[a.hash.slice(1)] = a; });
  var headings = Array.prototype.filter.call(document.querySelectorAll("main h2[id]"), function (h) { return entries[h.id]; });
  var marked = null, waiting = false;
  function markSection() {
    waiting = false;
    var now = null;
    headings.forEach(function (h) { if (h.getBoundingClientRect().top < 120) now = h; });
    if (now === marked) return;
    if (marked) entries[marked.id].classList.remove("reading");
    if (now) entries[now.id].classList.add("reading");
    marked = now;
  }
  addEventListener("scroll", function () {
    if (!waiting) { waiting = true; requestAnimationFrame(markSection); }
  }, { passive: true });
  markSection();
  var here = sidebar.querySelector(".here");
  if (here && here.offsetTop > sidebar.clientHeight * 0.7) sidebar.scrollTop = here.offsetTop - 80;

  // Search.
  var dialog = document.querySelector("dialog.search");
  var input = dialog.querySelector("input"), state = dialog.querySelector(".search-state");
  var list = dialog.querySelector(".search-results");
  var records = [], index = null, loading = false, chosen = -1;

  window.bookSearch = function (id, title, sections) {
    sections.forEach(function (s) {
      records.push({ page: id, chapter: title, anchor: s[0], number: s[1], title: s[2], prose: s[3], code: s[4] });
    });
  };
  function load(file, done) {
    var script = document.createElement("script");
    script.src = file;
    script.onload = done;
    script.onerror = function () { state.textContent = "The search could not load " + file + "."; };
    document.head.appendChild(script);
  }
  function build() {
    // Identifiers stay whole; brackets, dots and commas part words.
    lunr.tokenizer.separator = /[\s\-()\[\]{}<>;:,.*&=+!?|"'`\/\\%^~#@]+/;
    var builder = new lunr.Builder();
    builder.pipeline.add(lunr.trimmer, lunr.stopWordFilter, lunr.stemmer);
    builder.searchPipeline.add(lunr.stemmer);
    builder.ref("n");
    builder.field("title", { boost: 8 });
    builder.field("prose", { boost: 2 });
    builder.field("code");
    var next = 0;
    (function some() {
      var until = performance.now() + 40;
      while (next < records.length && performance.now() < until) {
        var r = records[next];
        builder.add({ n: String(next), title: r.title + " " + r.chapter, prose: r.prose, code: r.code });
        next++;
      }
      if (next < records.length) { setTimeout(some, 0); return; }
      index = builder.build();
      state.textContent = "";
      find();
    })();
  }
  function start() {
    if (loading) return;
    loading = true;
    state.textContent = "Reading the book …";
    var ids = self.dataset.search.split(" "), left = ids.length + 1;
    function one() { if (--left === 0) build(); }
    load("lunr.js", one);
    ids.forEach(function (id) { load("search/" + id + ".js", one); });
  }

  function words() { return input.value.toLowerCase().split(/[\s()\[\]{}<>;:,.*&=+!?|"'`\/\\%^~#@-]+/).filter(Boolean); }
  function search(terms) {
    return index.query(function (q) {
      terms.forEach(function (term, i) {
        var stem = lunr.stemmer(new lunr.Token(term)).toString();
        var must = terms.length > 1 ? lunr.Query.presence.REQUIRED : lunr.Query.presence.OPTIONAL;
        if (lunr.stopWordFilter(new lunr.Token(term)) === undefined) return;
        // The last word may be half typed.
        if (i === terms.length - 1) {
          q.term(stem, { boost: 10, usePipeline: false });
          q.term(term, { boost: 2, usePipeline: false, wildcard: lunr.Query.wildcard.TRAILING });
        } else {
          q.term(stem, { boost: 10, usePipeline: false, presence: must });
        }
      });
    });
  }
  function marks(parent, text, terms) {
    var pattern = terms.map(function (t) { return t.replace(/[^\w]/g, "\\$&"); }).join("|");
    text.split(new RegExp("(" + pattern + ")", "i")).forEach(function (piece, i) {
      if (i % 2) { var m = document.createElement("mark"); m.textContent = piece; parent.appendChild(m); }
      else if (piece) parent.appendChild(document.createTextNode(piece));
    });
  }
  function excerpt(r, terms) {
    var best = -1, text = r.prose;
    [r.prose, r.code].some(function (source) {
      var lower = source.toLowerCase();
      terms.some(function (t) { best = lower.indexOf(t); return best >= 0; });
      text = source;
      return best >= 0;
    });
    if (best < 0) { text = r.prose || r.code; best = 0; }
    var from = Math.max(0, best - 60), to = Math.min(text.length, best + 130);
    return (from > 0 ? "… " : "") + text.slice(from, to) + (to < text.length ? " …" : "");
  }
  function find() {
    if (!index) return;
    var terms = words();
    list.textContent = "";
    chosen = -1;
    if (!terms.length) { state.textContent = ""; return; }
    var found = search(terms);
    var wanted = terms.slice(0, -1).map(function (t) { return lunr.stemmer(new lunr.Token(t)).toString(); });
    state.textContent = found.length === 0 ? "Nothing found." : found.length === 1 ? "One section." : found.length + " sections.";
    found.slice(0, 40).forEach(function (hit) {
      var r = records[+hit.ref];
      var item = document.createElement("li"), a = document.createElement("a");
      var strong = document.createElement("strong"), where = document.createElement("span"), text = document.createElement("span");
      a.href = r.page + ".html" + (r.anchor ? "#" + r.anchor : "");
      marks(strong, r.title, terms);
      where.className = "where";
      where.textContent = r.anchor ? r.chapter : "";
      text.className = "excerpt";
      marks(text, excerpt(r, terms.concat(wanted)), terms);
      a.append(strong, where, text);
      item.appendChild(a);
      list.appendChild(item);
    });
  }
  function choose(step) {
    var all = list.querySelectorAll("a");
    if (!all.length) return;
    if (chosen >= 0) all[chosen].classList.remove("chosen");
    chosen = Math.max(0, Math.min(all.length - 1, chosen + step));
    all[chosen].classList.add("chosen");
    all[chosen].scrollIntoView({ block: "nearest" });
  }
  function openSearch() {
    if (!dialog.open) dialog.showModal();
    input.select();
    start();
  }
  document.querySelector(".search-open").addEventListener("click", openSearch);
  document.addEventListener("keydown", function (event) {
    if (event.key === "/" && !event.ctrlKey && !event.metaKey && !event.altKey && !/^(INPUT|TEXTAREA)$/.test(event.target.tagName)) {
      event.preventDefault();
      openSearch();
    } else if (event.key === "Escape") {
      openContents(false);
    }
  });
  var timer = 0;
  input.addEventListener("input", function () { clearTimeout(timer); timer = setTimeout(find, 80); });
  input.addEventListener("keydown", function (event) {
    if (event.key === "ArrowDown") { event.preventDefault(); choose(1); }
    else if (event.key === "ArrowUp") { event.preventDefault(); choose(-1); }
    else if (event.key === "Enter") {
      event.preventDefault();
      var all = list.querySelectorAll("a");
      if (all.length) { dialog.close(); location.href = all[Math.max(0, chosen)].href; }
    }
  });
  list.addEventListener("click", function () { dialog.close(); });
  dialog.addEventListener("click", function (event) { if (event.target === dialog) dialog.close(); });
})();
