-- What is to be woven: reads the index of the book (build/index.lua) and writes the list of
-- chapters, once for make (chapters.mk) and once for the later passes (book.lua).
--
-- A Pandoc filter only because Pandoc brings the Lua that runs it; the document is empty.
-- Environment: WEAVE_INDEX, WEAVE_OUT, WEAVE_MISSING=skip (a chapter of book.yaml that is not yet
-- written is left out with a warning instead of being an error).

local here = PANDOC_SCRIPT_FILE:match("^(.*/)") or "./"
local lib = dofile(here .. "lib.lua")

local out = os.getenv("WEAVE_OUT") or "build/book"
local lenient = os.getenv("WEAVE_MISSING") == "skip"

function Pandoc(doc)
  local index = lib.load(os.getenv("WEAVE_INDEX") or "build/index.lua")
  local book, make, ids, missing = index.book, {}, {}, 0
  local parts = {}
  for _, part in ipairs(book.parts) do
    local chapters = {}
    for _, chapter in ipairs(part.chapters) do
      local files = {}
      for _, file in ipairs(chapter.files) do
        if lib.exists(file) then files[#files + 1] = file
        else
          missing = missing + 1
          lib.warn("book.yaml: chapter " .. chapter.id .. ": " .. file .. " does not exist"
            .. (lenient and "; left out" or ""))
        end
      end
      if #files > 0 then
        ids[#ids + 1] = chapter.id
        chapters[#chapters + 1] = { id = chapter.id, number = chapter.number, files = files }
        make[#make + 1] = "FILES_" .. chapter.id .. " := " .. table.concat(files, " ")
      end
    end
    if #chapters > 0 then parts[#parts + 1] = { title = part.title or "", chapters = chapters } end
  end
  if missing > 0 and not lenient then
    lib.fail("weave: " .. missing .. " file(s) of book.yaml missing; WEAVE_MISSING=skip weaves without them")
  end
  book.parts = parts
  lib.write_if_changed(out .. "/book.lua", lib.to_lua(book))
  lib.write_file(out .. "/chapters.mk", "CHAPTERS := " .. table.concat(ids, " ") .. "\n"
    .. table.concat(make, "\n") .. "\nBIBLIOGRAPHY := " .. (book.bibliography or "") .. "\n")
  return doc
end
