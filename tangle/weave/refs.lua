-- After citeproc: the list of references in the weave's own form. Every chapter has its own, so the
-- anchors get the chapter's id in front where all chapters share one name space (LaTeX, EPUB).

local stringify = pandoc.utils.stringify

function Pandoc(doc)
  local format = stringify(doc.meta["weave-format"] or "html")
  local id = stringify(doc.meta["weave-id"] or "")
  local latex = format == "latex"
  local prefix = format == "html" and "" or id .. "-"

  local function entries(div)
    if div.identifier ~= "refs" then return nil end
    local out = pandoc.List {}
    for _, entry in ipairs(div.content) do
      if latex then
        local first = entry.content[1]
        local inlines = pandoc.List { pandoc.RawInline("latex", "\\dlsreference{" .. prefix .. entry.identifier .. "}{") }
        inlines:extend(first.content)
        inlines:insert(pandoc.RawInline("latex", "}"))
        out:insert(pandoc.Plain(inlines))
      else
        out:insert(pandoc.Div(entry.content, pandoc.Attr(prefix .. entry.identifier, { "csl-entry" })))
      end
    end
    if latex then return out end
    return pandoc.Div(out, pandoc.Attr("", { "references" }))
  end

  local function link(l)
    local key = l.target:match("^#(ref%-.+)$")
    if key and latex then
      local out = pandoc.List { pandoc.RawInline("latex", "\\hyperlink{" .. prefix .. key .. "}{") }
      out:extend(l.content)
      out:insert(pandoc.RawInline("latex", "}"))
      return out
    elseif key then
      l.target = "#" .. prefix .. key
      return l
    elseif latex and l.target:match("^https?:") and stringify(l.content) == l.target then
      local url = l.target:gsub("([%%#\\{}])", "\\%1")
      local text = l.target:gsub("([%%#&_$\\{}])", "\\%1"):gsub("([/.?=_-])", "%1\\allowbreak{}")
      return pandoc.RawInline("latex", "\\href{" .. url .. "}{\\dlsurl{" .. text .. "}}")
    end
  end

  -- citeproc's heading, in the weave's form
  local function header(h)
    if stringify(h.content) ~= "References" then return nil end
    if latex then return pandoc.RawBlock("latex", "\\dlsplainsection{References}{" .. id .. "-references}") end
    return pandoc.Header(2, h.content, pandoc.Attr(prefix .. "references", { "unnumbered" }))
  end

  doc = doc:walk { Link = link }
  doc = doc:walk { Div = entries, Header = header }
  for _, key in ipairs { "references", "bibliography", "link-citations", "reference-section-title", "weave-format",
                         "weave-id", "nocite" } do
    doc.meta[key] = nil
  end
  return doc
end
