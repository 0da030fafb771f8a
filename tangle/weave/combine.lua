-- The chapters, woven for EPUB (epub/ID.json), become one document: Pandoc's EPUB writer takes one.
-- Environment: WEAVE_OUT, WEAVE_IDS (the order).

local here = PANDOC_SCRIPT_FILE:match("^(.*/)") or "./"
local lib = dofile(here .. "lib.lua")
local out = os.getenv("WEAVE_OUT") or "build/book"

function Pandoc(doc)
  local book = lib.load(out .. "/book.lua")
  local blocks = pandoc.List {}
  for id in (os.getenv("WEAVE_IDS") or ""):gmatch("%S+") do
    blocks:extend(pandoc.read(lib.read_file(out .. "/epub/" .. id .. ".json"), "json").blocks)
  end
  doc.blocks = blocks
  local function text(s) return pandoc.MetaInlines { pandoc.Str(s) } end
  doc.meta.title = text(book.title)
  if book.subtitle then doc.meta.subtitle = text(book.subtitle) end
  local authors = {}
  for i, author in ipairs(book.authors or {}) do authors[i] = text(author) end
  doc.meta.author = pandoc.MetaList(authors)
  doc.meta.lang = text(book.language or "en")
  doc.meta.identifier = text("urn:dls:running-book:" .. (book.edition or "0"))
  if book.licence then doc.meta.rights = text(book.licence) end
  return doc
end
