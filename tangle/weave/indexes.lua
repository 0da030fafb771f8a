-- The pages that no chapter writes: the front page with the contents, the index of chunks and the
-- index of identifiers, in all three formats.

local here = PANDOC_SCRIPT_FILE:match("^(.*/)") or "./"
local lib = dofile(here .. "lib.lua")
local M = {}

-- A name that a narrow column may break after an underscore or before a capital.
local function breakable(name)
  local marked = name:gsub("(%l)(%u)", "%1\1%2")
  return (lib.tex_code(marked):gsub("\\_", "\\_\\allowbreak{}"):gsub("\1", "\\allowbreak{}"))
end

local function place(W, p)
  local text = p.section ~= "" and p.section or p.title or p.id
  if W.latex then return "\\dlspage{" .. W.tex_label(p.id, p.anchor) .. "}" end
  return W.raw_link(lib.html(text), p.id, p.anchor)
end

local function places(W, list)
  local out = {}
  for _, p in ipairs(list) do out[#out + 1] = place(W, p) end
  return table.concat(out, ", ")
end

local function sections(W, list)
  local out = {}
  for _, p in ipairs(list) do
    out[#out + 1] = W.raw_link(lib.tex(p.section ~= "" and p.section or p.title or p.id), p.id, p.anchor)
  end
  return table.concat(out, ", ")
end

local function front(W)
  local dep, book, out = W.dep, W.dep.book, {}
  local function add(...) for _, s in ipairs { ... } do out[#out + 1] = s end end
  add('<div class="title-page"><h1 id="chapter">', lib.html(book.title), "</h1>")
  if book.subtitle then add('<p class="subtitle">', lib.html(book.subtitle), "</p>") end
  add('<p class="authors">', lib.html(table.concat(book.authors or {}, ", ")), "</p>")
  if book.edition then add('<p class="edition">Edition ', lib.html(book.edition), "</p>") end
  add("</div>\n", '<div class="contents-list"><h2 id="contents">Contents</h2>')
  for _, part in ipairs(dep.list) do
    if part.title ~= "" then add('<p class="part">', lib.html(part.title), "</p>") end
    add("<ul>")
    for _, chapter in ipairs(part.chapters) do
      add('<li class="chapter">', W.raw_link((chapter.number and '<span class="secno">' .. lib.html(chapter.number)
        .. "</span> " or "") .. lib.html(chapter.title), chapter.id, ""))
      local sections = {}
      for _, s in ipairs(chapter.sections) do
        if s.level == 2 then
          sections[#sections + 1] = "<li>" .. W.raw_link((s.number and '<span class="secno">' .. lib.html(s.number)
            .. "</span> " or "") .. lib.html(s.title), chapter.id, s.anchor) .. "</li>"
        end
      end
      if #sections > 0 then add("<ul>", table.concat(sections), "</ul>") end
      add("</li>")
    end
    add("</ul>")
  end
  add('<p class="part">Indexes</p><ul><li class="chapter">', W.raw_link("Index of chunks", "chunks", ""),
    '</li><li class="chapter">', W.raw_link("Index of identifiers", "identifiers", ""), "</li></ul></div>")
  if book.licence then add('<p class="licence">', lib.html(book.licence), "</p>") end
  return table.concat(out)
end

local function letter(name) return (name:match("%a") or "#"):upper() end

local function chunks(W)
  local dep, out = W.dep, {}
  local function add(...) for _, s in ipairs { ... } do out[#out + 1] = s end end
  if W.latex then
    add("\\dlsindex{Index of chunks}{chapter-chunks}{Pages where a chunk is defined, then, in italics, where it is used.}\n")
    for _, entry in ipairs(dep.list) do
      add("\\dlsentry{\\dlschunk{", lib.tex(lib.chunk_title(entry.name)), "}}{", places(W, entry.parts),
        #entry.uses > 0 and "; \\textit{" .. places(W, entry.uses) .. "}" or "", "}\n")
    end
    add("\\dlsindexbreak{Files}\n")
    for _, file in ipairs(dep.paths) do
      add("\\dlsentry{\\dlscode{", (lib.tex_code(file.path):gsub("/", "/\\allowbreak{}"):gsub("\\_", "\\_\\allowbreak{}")),
        "}}{", place(W, file), "}\n")
    end
    add("\\dlsindexend\n")
    return table.concat(out)
  end
  add('<h1 id="chapter">Index of chunks</h1><p>Every named chunk of code, with the sections in which its parts are ',
    "defined and those in which it is used; then the files that the chunks make up.</p>")
  local initial
  for _, entry in ipairs(dep.list) do
    local l = letter(entry.name)
    if l ~= initial then
      if initial then add("</dl>") end
      add('<h2 class="letter" id="letter-', l == "#" and "other" or l, '">', l, '</h2><dl class="index">')
      initial = l
    end
    local first = entry.parts[1]
    add("<dt>", W.raw_link("⟨" .. lib.html(lib.chunk_title(entry.name)) .. "⟩", first.id, first.anchor, "chunk-ref"),
      "</dt><dd>", places(W, entry.parts))
    if #entry.uses > 0 then add('<span class="uses">used in ', places(W, entry.uses), "</span>") end
    add("</dd>")
  end
  if initial then add("</dl>") end
  add('<h2 id="files">Files</h2><dl class="index">')
  for _, file in ipairs(dep.paths) do
    add("<dt>", W.raw_link("<code>" .. lib.html(file.path) .. "</code>", file.id, file.anchor), "</dt><dd>",
      place(W, file), "</dd>")
  end
  add(#dep.paths == 0 and "<dt>none</dt><dd></dd>" or "", "</dl>")
  return table.concat(out)
end

local function identifiers(W)
  local dep, out = W.dep, {}
  local function add(...) for _, s in ipairs { ... } do out[#out + 1] = s end end
  if W.latex then
    add("\\dlsindex{Index of identifiers}{chapter-identifiers}{The page of the definition, then, in italics, the sections that use the name.}\n")
    for _, entry in ipairs(dep.list) do
      add("\\dlsentry{\\dlscode{", breakable(entry.name), "} \\dlskind{",
        lib.tex(entry.kind or ""), "}}{", place(W, entry.place),
        #entry.uses > 0 and "; \\textit{" .. sections(W, entry.uses) .. "}" or "", "}\n")
    end
    add("\\dlsindexend\n")
    return table.concat(out)
  end
  add('<h1 id="chapter">Index of identifiers</h1><p>The public functions, types, macros and kernels, with the section ',
    "in which each is defined and those in which it is used.</p>")
  if #dep.list == 0 then return table.concat(out) end
  add('<dl class="index">')
  for _, entry in ipairs(dep.list) do
    add('<dt id="id-', lib.html(entry.name), '">', W.raw_link("<code>" .. lib.html(entry.name) .. "</code>", entry.place.id,
      entry.place.anchor), ' <span class="kind">', lib.html(entry.kind or ""), "</span></dt><dd>", place(W, entry.place))
    if #entry.uses > 0 then add('<span class="uses">used in ', places(W, entry.uses), "</span>") end
    add("</dd>")
  end
  add("</dl>")
  return table.concat(out)
end

function M.blocks(W)
  local make = { index = front, chunks = chunks, identifiers = identifiers }
  local source = make[W.dep.id](W)
  if W.latex then return { pandoc.RawBlock("latex", source) } end
  if W.format == "epub" then
    local title = W.dep.title
    return { pandoc.Header(1, { pandoc.Str(title) }, pandoc.Attr("chapter-" .. W.dep.id, { "unnumbered" })),
             pandoc.RawBlock("html", (source:gsub("<h1[^>]*>.-</h1>", ""))) }
  end
  return { pandoc.RawBlock("html", source) }
end

return M
