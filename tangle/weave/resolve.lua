-- Second pass, once for the book: brings together what the chapters define (build/book/scan/*.lua)
-- and what the literate tool knows (build/index.lua), finds the target of every reference, and
-- writes for each page one file with all that the page needs from elsewhere: build/book/dep/ID.lua.
-- A page is woven again when its text or this file changed. So these files hold nothing that moves
-- when another chapter is edited without effect on the page, above all no line numbers of others.
--
-- A Pandoc filter only because Pandoc brings the Lua that runs it; the document is empty.
-- Environment: WEAVE_INDEX, WEAVE_OUT, WEAVE_MISSING=skip (references to what is not there are
-- warnings; the book then shows them as missing).

local here = PANDOC_SCRIPT_FILE:match("^(.*/)") or "./"
local lib = dofile(here .. "lib.lua")

local out = os.getenv("WEAVE_OUT") or "build/book"
local lenient = os.getenv("WEAVE_MISSING") == "skip"
local index = lib.load(os.getenv("WEAVE_INDEX") or "build/index.lua")
local book = lib.load(out .. "/book.lua")

local problems = 0
local function problem(files, needle, text)
  problems = problems + 1
  local file, line, column = lib.find_line(files, needle or "\0")
  local where = file .. (line and ":" .. line .. ":" .. column or "")
  lib.warn(where .. ": " .. (lenient and "warning: " or "error: ") .. text)
end

local function did_you_mean(word, candidates)
  local near = lib.nearest(word, candidates)
  return near and "; did you mean " .. near .. "?" or ""
end

-- Chapters in order, each with its scan.
local chapters, of_file, by_id = {}, {}, {}
for _, part in ipairs(book.parts) do
  for _, chapter in ipairs(part.chapters) do
    chapter.part = part.title
    chapter.scan = lib.load(out .. "/scan/" .. chapter.id .. ".lua")
    chapter.title = chapter.scan.title
    chapters[#chapters + 1] = chapter
    chapter.position = #chapters
    by_id[chapter.id] = chapter
    for _, file in ipairs(chapter.files) do of_file[file] = chapter end
  end
end

local function full_number(chapter, number)
  if not chapter.number then return nil end
  if number == "" then return nil end
  return chapter.number .. "." .. number
end

-- Labels.
local labels, local_labels = {}, {}
for _, chapter in ipairs(chapters) do
  local own = {}
  for label, entry in pairs(chapter.scan.labels) do
    local number = full_number(chapter, entry.number)
    if entry.kind == "chapter" then number = chapter.number
    elseif entry.kind ~= "section" and not chapter.number then number = entry.number end
    local resolved = { id = chapter.id, anchor = entry.kind == "chapter" and "" or lib.anchor(label),
                       kind = entry.kind, number = number, title = entry.title }
    if not chapter.number and entry.kind ~= "chapter" then resolved.chapter = chapter.title end
    if entry.kind == "chapter" and chapter.number and not chapter.number:match("^%d") then
      resolved.kind = "appendix"
    end
    own[label] = resolved
    if label:match("^%a+:") or label:match("^ex%-") then
      if labels[label] then
        problem(chapter.files, "#" .. label, "label " .. label .. " is defined in chapter "
          .. labels[label].id .. " too")
      end
      labels[label] = resolved
    end
  end
  local_labels[chapter.id] = own
end

-- Chunks: the section of each block, in the order of the index.
local chunks, section_of = {}, {}
for name, chunk in pairs(index.chunks) do
  local entry = { parts = {}, starts = {}, uses = {} }
  local within = {}
  for k, block in ipairs(chunk.blocks) do
    local chapter = of_file[block.file]
    if chapter then
      within[chapter.id] = (within[chapter.id] or 0) + 1
      local seen = (chapter.scan.chunks[name] or {})[within[chapter.id]]
      local anchor = lib.chunk_anchor(name, k)
      local part = { id = chapter.id, anchor = anchor, k = k,
                     section = seen and full_number(chapter, seen.section) or chapter.number or "" }
      part.title = chapter.title
      entry.parts[#entry.parts + 1] = part
      entry.starts[#entry.starts + 1] = { file = block.file, line = block.line, anchor = anchor }
      section_of[anchor] = part
    end
  end
  chunks[name] = entry
end
local roots = {}
for path, root in pairs(index.roots) do
  local chapter = of_file[root.file]
  if chapter then
    local seen = chapter.scan.roots[path]
    local anchor = lib.file_anchor(path)
    roots[path] = { id = chapter.id, anchor = anchor, title = chapter.title,
                    section = seen and full_number(chapter, seen.section) or chapter.number or "" }
    section_of[anchor] = roots[path]
  end
end

-- Where a chunk is used: the block of the user that holds the line.
local function place_of_use(use)
  if roots[use.inside] then
    local r = roots[use.inside]
    return { id = r.id, anchor = r.anchor, section = r.section, file = use.inside }
  end
  local user = chunks[use.inside]
  if not user then return nil end
  local found, line
  for i, start in ipairs(user.starts) do
    if start.file == use.file and start.line <= use.line and (not line or start.line > line) then
      found, line = user.parts[i], start.line
    end
  end
  found = found or user.parts[1]
  return found and { id = found.id, anchor = found.anchor, section = found.section, chunk = use.inside }
end
for name, chunk in pairs(index.chunks) do
  local seen = {}
  for _, use in ipairs(chunk.uses or {}) do
    local place = place_of_use(use)
    if place and not seen[place.anchor] then
      seen[place.anchor] = true
      table.insert(chunks[name].uses, place)
    end
  end
end

-- Identifiers.
local function place_of_anchor(place)
  local known = section_of[place.anchor or ""]
  if known then return { id = known.id, anchor = place.anchor, section = known.section, title = known.title } end
  local chapter = of_file[place.file]
  return chapter and { id = chapter.id, anchor = "", section = chapter.number or "", title = chapter.title }
end
local identifiers = {}
for name, identifier in pairs(index.identifiers or {}) do
  local place = identifier.defined and place_of_anchor(identifier.defined)
  -- The guard of a header is nobody's to use.
  if place and lib.public(name) and not (identifier.kind == "macro" and name:match("_H$")) then
    -- One use per section: dls_status is used in hundreds of chunks.
    local uses, seen = {}, {}
    for _, use in ipairs(identifier.uses or {}) do
      local at = place_of_anchor(use)
      local section = at and at.id .. " " .. at.section
      if at and at.anchor ~= place.anchor and not seen[section] then
        seen[section] = true
        uses[#uses + 1] = at
      end
    end
    identifiers[name] = { kind = identifier.kind, place = place, uses = uses }
  end
end

-- Keys of the bibliography.
local keys = {}
for key in (lib.read_file(book.bibliography or "") or ""):gmatch("@%a+%s*{%s*([^,%s]+)%s*,") do
  keys[key] = true
end

-- The contents, as every page shows them.
local contents = {}
for _, part in ipairs(book.parts) do
  local list = {}
  for _, chapter in ipairs(part.chapters) do
    list[#list + 1] = { id = chapter.id, number = chapter.number, title = chapter.title }
  end
  contents[#contents + 1] = { title = part.title, chapters = list }
end

local function sections(chapter)
  local list = {}
  for _, heading in ipairs(chapter.scan.headings) do
    list[#list + 1] = { level = heading.level, anchor = heading.anchor, title = heading.title,
                        number = full_number(chapter, heading.number) }
  end
  return list
end

local facts = { title = book.title, subtitle = book.subtitle, authors = book.authors, edition = book.edition,
                licence = book.licence, language = book.language, bibliography = book.bibliography }
local last_pages = { { id = "chunks", title = "Index of chunks" },
                     { id = "identifiers", title = "Index of identifiers" } }
local pages = {}
for _, chapter in ipairs(chapters) do pages[chapter.id] = chapter.position end
for i, page in ipairs(last_pages) do pages[page.id] = #chapters + i end
if by_id.chunks or by_id.identifiers or by_id.index then
  lib.fail("weave: book.yaml: chunks, identifiers and index are no ids for a chapter; these pages exist")
end

local function neighbour(position)
  local chapter = chapters[position]
  if chapter then return { id = chapter.id, number = chapter.number, title = chapter.title } end
  return last_pages[position - #chapters]
end

for position, chapter in ipairs(chapters) do
  local scan, files = chapter.scan, chapter.files
  for _, p in ipairs(scan.problems) do problem(files, p.needle, p.text) end
  local dep = {
    book = facts, id = chapter.id, number = chapter.number, title = chapter.title, part = chapter.part,
    pages = pages, contents = contents, sections = sections(chapter), files = files,
    previous = position > 1 and neighbour(position - 1) or { id = "index", title = "Contents" },
    next = neighbour(position + 1),
    labels = local_labels[chapter.id], chunks = {}, roots = {}, identifiers = {}, runs = {}, figures = {}, widths = {}, themed = {},
    label = scan.chapter_label,
  }
  for label in pairs(scan.refs) do
    if labels[label] then dep.labels[label] = labels[label]
    elseif not dep.labels[label] then
      problem(files, label:match("^ex%-") and label or (label:match(":") and "@" .. label or "#" .. label),
        "nothing is labelled " .. label .. did_you_mean(label, labels))
    end
  end
  for key in pairs(scan.cites) do
    if not keys[key] then
      problem(files, "@" .. key, "no entry " .. key .. " in " .. tostring(book.bibliography)
        .. did_you_mean(key, keys))
    end
  end
  for name in pairs(scan.chunk_refs) do
    local chunk = chunks[name]
    if chunk and #chunk.parts > 0 then
      local entry = { parts = {}, uses = chunk.uses, here = {} }
      for i, part in ipairs(chunk.parts) do
        entry.parts[i] = { id = part.id, anchor = part.anchor, section = part.section }
        if part.id == chapter.id then table.insert(entry.here, i) end
      end
      if #entry.here > 0 then
        entry.lines = {}
        for i, k in ipairs(entry.here) do
          entry.lines[i] = { file = chunk.starts[k].file, line = chunk.starts[k].line }
        end
      else
        entry.uses = nil
      end
      dep.chunks[name] = entry
    else
      problem(files, name, "there is no chunk <<" .. name .. ">>" .. did_you_mean(name, chunks))
    end
  end
  for path in pairs(scan.roots) do
    local root = index.roots[path]
    if root then dep.roots[path] = { file = root.file, line = root.line } end
  end
  for word in pairs(scan.words) do
    local identifier = identifiers[word]
    if identifier then
      dep.identifiers[word] = { id = identifier.place.id, anchor = identifier.place.anchor, kind = identifier.kind }
    end
  end
  for id in pairs(scan.runs) do
    local run = (index.runs or {})[id] or { status = "missing" }
    local expect = scan.expects[id]
    dep.runs[id] = { status = run.status, exit = run.exit, output = run.output, machine = run.machine,
                     date = run.date, how = expect and expect.how, expect = expect and expect.text }
  end
  for _, figure in ipairs(scan.figures) do
    if lib.exists("build/" .. figure) then dep.figures[figure] = "build/" .. figure
    elseif lib.exists(figure) then dep.figures[figure] = figure
    else problem(files, figure, "there is no figure " .. figure .. " (nor build/" .. figure .. ")") end
    if dep.figures[figure] and figure:match("%.svg$") then
      dep.widths[figure] = lib.svg_width(dep.figures[figure])
      dep.themed[figure] = lib.svg_themed(dep.figures[figure])
    end
  end
  lib.write_if_changed(out .. "/dep/" .. chapter.id .. ".lua", lib.to_lua(dep))
end

-- The pages that no chapter has: the front page and the two indexes.
local function sorted(map)
  local names = {}
  for name in pairs(map) do names[#names + 1] = name end
  table.sort(names, function(a, b)
    local x, y = a:lower(), b:lower()
    if x ~= y then return x < y end
    return a < b
  end)
  return names
end
local function write_page(id, page)
  page.book, page.id, page.pages, page.contents = facts, id, pages, contents
  page.labels, page.chunks, page.identifiers, page.runs, page.figures, page.roots = {}, {}, {}, {}, {}, {}
  lib.write_if_changed(out .. "/dep/" .. id .. ".lua", lib.to_lua(page))
end
do
  local list = {}
  for _, part in ipairs(book.parts) do
    local entries = {}
    for _, chapter in ipairs(part.chapters) do
      entries[#entries + 1] = { id = chapter.id, number = chapter.number, title = chapter.title,
                                sections = sections(chapter) }
    end
    list[#list + 1] = { title = part.title, chapters = entries }
  end
  write_page("index", { title = book.title, list = list, next = neighbour(1) })
end
do
  local list, files = {}, {}
  for _, name in ipairs(sorted(chunks)) do
    local chunk = chunks[name]
    if #chunk.parts > 0 then
      list[#list + 1] = { name = name, parts = chunk.parts, uses = chunk.uses }
    end
  end
  for _, path in ipairs(sorted(roots)) do
    local r = roots[path]
    files[#files + 1] = { path = path, id = r.id, anchor = r.anchor, section = r.section, title = r.title }
  end
  write_page("chunks", { title = "Index of chunks", list = list, paths = files,
    previous = neighbour(#chapters), next = last_pages[2] })
end
do
  local list = {}
  for _, name in ipairs(sorted(identifiers)) do
    local i = identifiers[name]
    list[#list + 1] = { name = name, kind = i.kind, place = i.place, uses = i.uses }
  end
  write_page("identifiers", { title = "Index of identifiers", list = list, previous = last_pages[1] })
end

-- LaTeX: the order of the book, and what stands on its title page.
do
  local body = {}
  for _, part in ipairs(book.parts) do
    if part.title ~= "" then body[#body + 1] = "\\dlspart{" .. lib.tex(part.title) .. "}" end
    for _, chapter in ipairs(part.chapters) do body[#body + 1] = "\\input{" .. chapter.id .. "}" end
  end
  body[#body + 1] = "\\backmatter\n\\input{chunks}\n\\input{identifiers}\n"
  lib.write_if_changed(out .. "/tex/body.tex", table.concat(body, "\n"))
  local function fact(name, text) return "\\newcommand\\dls" .. name .. "{" .. lib.tex(text or "") .. "}\n" end
  lib.write_if_changed(out .. "/tex/facts.tex", fact("title", book.title) .. fact("subtitle", book.subtitle)
    .. fact("authors", table.concat(book.authors or {}, ", "))
    .. fact("edition", book.edition and "Edition " .. book.edition) .. fact("licence", book.licence))
end

local figures, seen = {}, {}
for _, chapter in ipairs(chapters) do
  for _, figure in ipairs(chapter.scan.figures) do
    if not seen[figure] then
      seen[figure] = true
      figures[#figures + 1] = figure
    end
  end
end
table.sort(figures)
lib.write_if_changed(out .. "/figures.list", table.concat(figures, "\n") .. (#figures > 0 and "\n" or ""))

function Pandoc(doc)
  if problems > 0 and not lenient then
    lib.fail("weave: " .. problems .. " problem(s); WEAVE_MISSING=skip weaves nevertheless")
  end
  return doc
end
