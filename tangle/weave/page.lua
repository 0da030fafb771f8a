-- What surrounds the text of an HTML page: title, links to the neighbours, the contents in the
-- sidebar. Handed to the template (html/page.html) as metadata.

local here = PANDOC_SCRIPT_FILE:match("^(.*/)") or "./"
local lib = dofile(here .. "lib.lua")
local M = {}

local function full_title(p) return (p.number and p.number .. " " or "") .. p.title end

local function numbered(p)
  return (p.number and '<span class="secno">' .. lib.html(p.number) .. "</span> " or "") .. lib.html(p.title)
end

local function contents(W)
  local dep, out = W.dep, {}
  local function add(...) for _, s in ipairs { ... } do out[#out + 1] = s end end
  local function entry(p)
    local here_now = p.id == dep.id
    add('<li', here_now and ' class="here"' or "", '><a href="', p.id, '.html"', here_now and ' aria-current="page"' or "",
      ">", numbered(p), "</a>")
    if here_now and dep.sections and #dep.sections > 0 then
      local list, open = {}, false
      for _, s in ipairs(dep.sections) do
        if s.level == 2 then
          if open then list[#list + 1] = "</li>" end
          list[#list + 1] = '<li><a href="#' .. lib.html(s.anchor) .. '">' .. numbered(s) .. "</a>"
          open = true
        end
      end
      if open then list[#list + 1] = "</li>" end
      if #list > 0 then add("<ul>", table.concat(list), "</ul>") end
    end
    add("</li>")
  end
  add("<ul>")
  entry { id = "index", title = "Contents" }
  add("</ul>")
  for _, part in ipairs(dep.contents) do
    if part.title ~= "" then add('<p class="part">', lib.html(part.title), "</p>") end
    add("<ul>")
    for _, chapter in ipairs(part.chapters) do entry(chapter) end
    add("</ul>")
  end
  add('<p class="part">Indexes</p><ul>')
  entry { id = "chunks", title = "Chunks" }
  entry { id = "identifiers", title = "Identifiers" }
  add("</ul>")
  return table.concat(out)
end

local function neighbour(p, rel, arrow_first, arrow)
  if not p then return "" end
  local title = numbered(p)
  return '<a class="' .. rel .. '" rel="' .. rel .. '" href="' .. p.id .. '.html" title="' .. lib.html(full_title(p)) .. '">'
    .. (arrow_first and '<span class="arrow" aria-hidden="true">' .. arrow .. "</span> " or "")
    .. '<span class="word">' .. title .. "</span>"
    .. (arrow_first and "" or ' <span class="arrow" aria-hidden="true">' .. arrow .. "</span>") .. "</a>"
end

function M.metadata(W, doc)
  local dep = W.dep
  local function raw(s) return pandoc.MetaInlines { pandoc.RawInline("html", s) } end
  local function text(s) return pandoc.MetaInlines { pandoc.Str(s) } end
  local meta = {}
  meta.lang = text(dep.book.language or "en")
  meta.pagetitle = raw(lib.html(dep.id == "index" and dep.book.title or full_title(dep) .. " — " .. dep.book.title))
  meta["book-title"] = raw(lib.html(dep.book.title))
  meta["page-id"] = raw(lib.html(dep.id))
  meta.contents = raw(contents(W))
  meta["go-previous"] = raw(neighbour(dep.previous, "prev", true, "←"))
  meta["go-next"] = raw(neighbour(dep.next, "next", false, "→"))
  local ids = {}
  for _, part in ipairs(dep.contents) do
    for _, chapter in ipairs(part.chapters) do ids[#ids + 1] = chapter.id end
  end
  meta["search-ids"] = raw(table.concat(ids, " "))
  if dep.part and dep.part ~= "" then meta.part = raw(lib.html(dep.part)) end
  if dep.book.licence then meta.licence = raw(lib.html(dep.book.licence)) end
  doc.meta = meta
end

return M
