-- First pass of the weave, once per chapter and over nothing but that chapter's text.
-- Gives every section, figure, table, equation and exercise its number within the chapter, tells
-- every code block which part of which chunk it is, and writes down (build/book/scan/ID.lua) what
-- the chapter defines and what it refers to. The annotated document goes on as JSON.
--
-- Metadata: weave-id (the chapter's id), weave-scan (the file to write), weave-search (the file
-- that the search of the HTML book loads).

local stringify = pandoc.utils.stringify
local here = PANDOC_SCRIPT_FILE:match("^(.*/)") or "./"
local lib = dofile(here .. "lib.lua")

local scan = {
  title = "", headings = {}, labels = {}, chunks = {}, roots = {}, runs = {}, expects = {}, figures = {},
  refs = {}, cites = {}, chunk_refs = {}, words = {}, problems = {},
}
local counts = { fig = 0, tbl = 0, eq = 0, ex = 0 }
local section, subsection = 0, 0
local current = ""        -- number of the section we are in, "" before the first
local current_label = nil -- its anchor
local seen_ids = {}

local function problem(text, needle)
  table.insert(scan.problems, { text = text, needle = needle })
end

local function define(label, kind, number, title)
  if scan.labels[label] then
    problem("label " .. label .. " is defined twice in this chapter", "#" .. label)
  end
  scan.labels[label] = { kind = kind, number = number, title = title }
end

local function next_number(kind)
  counts[kind] = counts[kind] + 1
  return tostring(counts[kind])
end

local function words_of_code(text)
  for word in text:gmatch("%f[%w_][%a_][%w_]*") do
    if lib.public(word) then scan.words[word] = true end
  end
end

local function mentioned_chunks(text)
  for line in (text .. "\n"):gmatch("([^\n]*)\n") do
    local name = line:match("^%s*<<([%w_-]+)>>%s*$")
    if name then scan.chunk_refs[name] = true end
  end
end

local function header(h)
  local title = stringify(h.content)
  local plain = h.classes:includes("unnumbered")
  local number = ""
  if h.level == 1 then
    if scan.title == "" then scan.title = title
    else problem("a chapter has one first-level heading; the second is “" .. title .. "”", title) end
    scan.chapter_label = h.identifier
    current, current_label = "", nil
  elseif h.level == 2 then
    subsection = 0
    if not plain then section = section + 1; number = tostring(section) end
  elseif h.level == 3 and not plain and section > 0 then
    subsection = subsection + 1
    number = section .. "." .. subsection
  end
  local id = h.identifier
  if id == "" then id = "section-" .. (#scan.headings + 1) end
  if h.level > 1 and h.level < 4 then
    current, current_label = number, lib.anchor(id)
    table.insert(scan.headings, { level = h.level, anchor = lib.anchor(id), number = number, title = title })
  end
  define(id, h.level == 1 and "chapter" or "section", number, title)
  h.attributes["weave-number"] = number
  h.identifier = id
  return h
end

local function fate_of(cb)
  local classes = cb.classes
  if cb.attributes.file then return "root" end
  for _, fate in ipairs { "run", "expect", "fails", "solution", "quote" } do
    if classes:includes(fate) then return fate end
  end
  if cb.identifier ~= "" then return "chunk" end
  return "none"
end

local function code_block(cb)
  local fate = fate_of(cb)
  cb.attributes["weave-fate"] = fate
  if fate == "root" then
    scan.roots[cb.attributes.file] = { section = current }
  elseif fate == "chunk" then
    local list = scan.chunks[cb.identifier] or {}
    list[#list + 1] = { section = current }
    scan.chunks[cb.identifier] = list
    cb.attributes["weave-part"] = tostring(#list)
    scan.chunk_refs[cb.identifier] = true
  elseif fate == "run" then
    scan.runs[cb.identifier] = { section = current }
  elseif fate == "expect" then
    local how = cb.classes:includes("device") and "words" or cb.attributes.tolerance or "exact"
    scan.expects[cb.attributes.of or "?"] = { how = how, text = cb.text }
  end
  if fate ~= "solution" then
    words_of_code(cb.text)
    if fate == "root" or fate == "chunk" then mentioned_chunks(cb.text) end -- elsewhere <<x>> is only text
  end
  return cb
end

-- "{#tbl:x}" at the end of a list of inlines: taken off and returned.
local function take_label(inlines, prefix)
  local last = inlines[#inlines]
  if not last or last.t ~= "Str" then return nil end
  local before, label = last.text:match("^(.*){#(" .. prefix .. ":[^}%s]+)}$")
  if not label then return nil end
  if before == "" then
    inlines:remove(#inlines)
    while #inlines > 0 and (inlines[#inlines].t == "Space" or inlines[#inlines].t == "SoftBreak") do
      inlines:remove(#inlines)
    end
  else
    inlines[#inlines] = pandoc.Str(before)
  end
  return label
end

local function table_block(tbl)
  local caption = tbl.caption.long
  local label = tbl.identifier ~= "" and tbl.identifier or nil
  if not label and #caption > 0 and caption[#caption].content then
    local block = caption[#caption]
    local inlines = block.content
    label = take_label(inlines, "tbl")
    block.content = inlines
    caption[#caption] = block
    tbl.caption = { long = caption, short = tbl.caption.short }
  end
  if #caption > 0 then
    local number = next_number("tbl")
    if label then define(label, "table", number, stringify(caption)) end
    tbl.attributes["weave-number"] = number
    tbl.identifier = label or ("tbl:" .. (scan.id or "") .. "-" .. number)
  end
  return tbl
end

-- One shape for both Pandocs: Div.weave-figure [ Plain [Image], Plain caption ].
local function figure(image, label, caption, attributes)
  local number = next_number("fig")
  if label ~= "" then define(label, "figure", number, stringify(caption)) end
  table.insert(scan.figures, image.src)
  image.title = (image.title or ""):gsub("^fig:", "")
  for k, v in pairs(attributes or {}) do image.attributes[k] = v end
  image.identifier = ""
  image.classes:insert("weave-in-figure")
  image.caption = pandoc.Inlines and pandoc.Inlines(caption) or caption
  return pandoc.Div({ pandoc.Plain { image }, pandoc.Plain(caption) },
    pandoc.Attr(label ~= "" and label or "fig:" .. (scan.id or "") .. "-" .. number, { "weave-figure" },
      { { "weave-number", number } }))
end

local function paragraph(p)
  local only = p.content[1]
  if #p.content == 1 and only.t == "Image" and (only.title or ""):match("^fig:") then
    return figure(only, only.identifier, only.caption, nil), false
  end
end

local function figure_block(f)
  local image
  f:walk { Image = function(i) image = image or i end }
  if not image then return nil end
  local caption = {}
  for _, block in ipairs(f.caption.long) do
    for _, inline in ipairs(block.content) do caption[#caption + 1] = inline end
  end
  local attributes = {}
  for k, v in pairs(f.attributes) do attributes[k] = v end
  local label = f.identifier ~= "" and f.identifier or image.identifier
  return figure(image, label, caption, attributes), false
end

-- $$ … $$ {#eq:x}: the display becomes Span.weave-equation, numbered when labelled.
local function equations(inlines)
  local out, i, changed = {}, 1, false
  while i <= #inlines do
    local el = inlines[i]
    if el.t == "Math" and el.mathtype == "DisplayMath" then
      changed = true
      local j = i + 1
      while inlines[j] and (inlines[j].t == "Space" or inlines[j].t == "SoftBreak") do j = j + 1 end
      local label, after
      if inlines[j] and inlines[j].t == "Str" then
        label, after = inlines[j].text:match("^{#(eq:[^}%s]+)}(.*)$")
      end
      local attributes, id = {}, ""
      if label then
        local number = next_number("eq")
        define(label, "equation", number, "")
        attributes = { { "weave-number", number } }
        id, i = label, j
      end
      out[#out + 1] = pandoc.Span({ el }, pandoc.Attr(id, { "weave-equation" }, attributes))
      if after and after ~= "" then out[#out + 1] = pandoc.Str(after) end
    else
      out[#out + 1] = el
    end
    i = i + 1
  end
  if changed then return out end
end

local function div(d)
  if d.classes:includes("exercise") then
    local number = next_number("ex")
    d.attributes["weave-number"] = number
    if d.identifier == "" then problem("an exercise has an identifier: ::: {.exercise #ex-name}", ".exercise")
    else define(d.identifier, "exercise", number, "") end
    return d
  end
end

local function cite(c)
  for _, citation in ipairs(c.citations) do
    local label = lib.reference(citation.id)
    if label then scan.refs[label] = true else scan.cites[citation.id] = true end
  end
end

local function link(l)
  local label = l.target:match("^#(.+)$")
  if label then scan.refs[label] = true end
end

local function code(c)
  local name = c.text:match("^<<([%w_-]+)>>$")
  if name then scan.chunk_refs[name] = true else words_of_code(c.text) end
end

-- What a reader would search for in a block: no keys of references, spaces between cells.
local function plain_text(block)
  local parts = {}
  block = pandoc.walk_block(pandoc.Div { block }, {
    Cite = function() return {} end,
    Code = function(c) return pandoc.Str((c.text:gsub("^<<(.*)>>$", lib.chunk_title))) end,
    Math = function(m) return pandoc.Str(m.text) end,
  })
  pandoc.walk_block(block, {
    Plain = function(b) parts[#parts + 1] = stringify(b) end,
    Para = function(b) parts[#parts + 1] = stringify(b) end,
    LineBlock = function(b) parts[#parts + 1] = stringify(b) end,
  })
  return table.concat(parts, " ")
end

-- "<thread>" in prose is an HTML element to Pandoc, "\rank" a TeX command; both would vanish.
local function raw(r)
  if r.text:match("^<!%-%-") then return {} end
  problem("“" .. r.text:sub(1, 40) .. "” would be taken for " .. r.format
    .. " and not be printed; put it in backticks or write a backslash before it", r.text:match("^[^\n]*"))
end

local function image(i)
  table.insert(scan.figures, i.src)
end

-- Search: one record per section of level 2 or 3, prose and code apart.
local function search_records(doc)
  local records, record = {}, nil
  local function open(anchor, number, title)
    record = { anchor = anchor, number = number, title = title, prose = {}, code = {} }
    records[#records + 1] = record
  end
  open("", "", scan.title)
  local function visit(blocks)
    for _, block in ipairs(blocks) do
      if block.t == "Header" then
        if block.level == 2 or block.level == 3 then
          open(lib.anchor(block.identifier), block.attributes["weave-number"] or "", stringify(block.content))
        end
      elseif block.t == "CodeBlock" then
        local fate = block.attributes["weave-fate"]
        if fate ~= "solution" then
          if fate == "chunk" then
            record.code[#record.code + 1] = lib.chunk_title(block.identifier) .. " "
          elseif fate == "root" then
            record.code[#record.code + 1] = block.attributes.file .. " "
          end
          record.code[#record.code + 1] = block.text .. "\n"
        end
      elseif block.t == "Div" and block.classes:includes("weave-figure") then
        record.prose[#record.prose + 1] = plain_text(block.content[2])
      elseif block.t == "Div" or block.t == "BlockQuote" then
        visit(block.content)
      elseif block.t == "BulletList" or block.t == "OrderedList" then
        for _, item in ipairs(block.content) do visit(item) end
      else
        record.prose[#record.prose + 1] = plain_text(block)
      end
    end
  end
  visit(doc.blocks)
  return records
end

local json_escapes = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\t"] = "\\t", ["\r"] = "",
                       ["<"] = "\\u003c" }
local function json(s)
  s = s:gsub('["\\\n\t\r<]', json_escapes):gsub("%c", " ")
  s = s:gsub("\u{2028}", " "):gsub("\u{2029}", " ")
  return '"' .. s .. '"'
end

local function write_search(path, doc)
  local out = { "bookSearch(" .. json(scan.id) .. ", " .. json(scan.title) .. ", [" }
  for _, r in ipairs(search_records(doc)) do
    local prose = table.concat(r.prose, " "):gsub("%s+", " ")
    out[#out + 1] = "[" .. table.concat({
      json(r.anchor), json(r.number), json(r.title), json(prose), json(table.concat(r.code)) }, ",") .. "],"
  end
  out[#out + 1] = "]);\n"
  lib.write_if_changed(path, table.concat(out, "\n"))
end

function Pandoc(doc)
  local meta = doc.meta
  scan.id = stringify(meta["weave-id"])
  doc = doc:walk {
    traverse = "topdown",
    Header = header, CodeBlock = code_block, Table = table_block, Para = paragraph, Figure = figure_block,
    Div = div, Cite = cite, Link = link, Code = code, Image = image, RawInline = raw, RawBlock = raw,
  }
  doc = doc:walk { Inlines = equations } -- apart: going down, it would find its own result again
  if scan.title == "" then problem("the chapter has no first-level heading", nil) end
  write_search(stringify(meta["weave-search"]), doc)
  lib.write_file(stringify(meta["weave-scan"]), lib.to_lua(scan))
  doc.meta = pandoc.Meta and pandoc.Meta {} or {}
  return doc
end
