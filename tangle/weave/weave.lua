-- Third pass, once per page and format: a numbered chapter (see number.lua) becomes HTML, EPUB or
-- LaTeX. Everything it needs from other chapters is in the page's file of build/book/dep/, so that
-- pages can be made in parallel, and alone.
--
-- Metadata: weave-format = html | epub | latex, weave-dep = the page's file.
-- Headings, figures, code and links are written as raw HTML or LaTeX where Pandoc's own output
-- differs between 2.17 and 3, or where it has no notion of the thing (a chunk, a run).

local stringify = pandoc.utils.stringify
local here = PANDOC_SCRIPT_FILE:match("^(.*/)") or "./"
local lib = dofile(here .. "lib.lua")
local code = dofile(here .. "code.lua")
local indexes = dofile(here .. "indexes.lua")
local page = dofile(here .. "page.lua")

local W = { lib = lib }   -- what the parts of this pass share: format, dep, links
local dep, latex

-- Links ---------------------------------------------------------------------------------------

local global_anchor = { chunk = true, file = true, sec = true, fig = true, tbl = true, eq = true, ex = true, run = true }

-- In LaTeX and in EPUB's contents the whole book is one name space; headings without a label get the chapter's id in front.
function W.tex_label(id, anchor)
  if anchor == "" then return "chapter-" .. id end
  if global_anchor[anchor:match("^(%a+)%-") or ""] then return anchor end
  return id .. "-" .. anchor
end

function W.href(id, anchor)
  if W.format == "epub" then
    local file = string.format("ch%03d.xhtml", dep.pages[id] or 0)
    return anchor == "" and file or file .. "#" .. W.tex_label(id, anchor)
  end
  if anchor == "" then return id .. ".html" end
  return (id == dep.id and "" or id .. ".html") .. "#" .. anchor
end

-- A link whose text is inlines.
function W.link(inlines, id, anchor, class, title)
  if latex then
    local out = pandoc.List { pandoc.RawInline("latex", "\\hyperref[" .. W.tex_label(id, anchor) .. "]{") }
    out:extend(inlines)
    out:insert(pandoc.RawInline("latex", "}"))
    return out
  end
  return pandoc.List { pandoc.Link(inlines, W.href(id, anchor), title or "",
    pandoc.Attr("", class and { class } or {})) }
end

-- A link as source text of the format.
function W.raw_link(text, id, anchor, class)
  if latex then return "\\hyperref[" .. W.tex_label(id, anchor) .. "]{" .. text .. "}" end
  return '<a' .. (class and ' class="' .. class .. '"' or "") .. ' href="' .. lib.html(W.href(id, anchor)) .. '">'
    .. text .. "</a>"
end

-- Cross-references ----------------------------------------------------------------------------

local function capital(s) return s:sub(1, 1):upper() .. s:sub(2) end

-- "section 4.2"; what has no number is called by its title.
local function name_of(entry, upper, bare)
  if not entry.number then return "“" .. entry.title .. "”" end
  local number = entry.kind == "equation" and "(" .. entry.number .. ")" or entry.number
  if bare then return number end
  -- "table 1" of a chapter without a number is not enough elsewhere.
  if entry.chapter and entry.id ~= dep.id then number = number .. " of the " .. entry.chapter:lower() end
  return (upper and capital(entry.kind) or entry.kind) .. "\u{a0}" .. number
end

local function reference(entry, upper, bare)
  local title = entry.number and entry.title ~= "" and not latex and entry.title or nil
  return W.link({ pandoc.Str(name_of(entry, upper, bare)) }, entry.id, entry.anchor, "ref", title)
end

local function cite(c)
  local out, others = pandoc.List {}, 0
  for i, citation in ipairs(c.citations) do
    local label, upper = lib.reference(citation.id)
    if label and not label:match("^ex%-") or label and dep.labels[label] then
      local entry = dep.labels[label]
      if i > 1 then
        out:extend(i == #c.citations and { pandoc.Str(" and ") } or { pandoc.Str(","), pandoc.Space() })
      end
      if #citation.prefix > 0 then
        out:extend(citation.prefix)
        out:insert(pandoc.Space())
      end
      if entry then out:extend(reference(entry, upper, citation.mode == "SuppressAuthor"))
      else out:extend { pandoc.Span({ pandoc.Str("[" .. label .. "?]") }, pandoc.Attr("", { "missing" })) } end
      out:extend(citation.suffix)
    else
      others = others + 1
    end
  end
  if others == 0 then return out end
end

local function link(l)
  local target = l.target:match("^#(.+)$")
  if target then
    local entry = dep.labels[target]
    if entry then return W.link(l.content, entry.id, entry.anchor, "ref") end
    return W.link(l.content, dep.id, lib.anchor(target), "ref")
  end
  if latex then
    local out = pandoc.List { pandoc.RawInline("latex", "\\href{" .. l.target:gsub("([%%#\\{}])", "\\%1") .. "}{") }
    if l.target == stringify(l.content) then
      out:insert(pandoc.RawInline("latex", "\\dlsurl{" .. code.breakable(l.target) .. "}"))
    else
      out:extend(l.content)
    end
    out:insert(pandoc.RawInline("latex", "}"))
    return out
  end
end

-- `<<chunk>>` and `dls_name` in prose.
local function inline_code(c)
  local name = c.text:match("^<<([%w_-]+)>>$")
  if name then
    local chunk = dep.chunks[name]
    local title = "⟨" .. lib.chunk_title(name) .. "⟩"
    if not chunk then return pandoc.Span({ pandoc.Str(title) }, pandoc.Attr("", { "missing" })) end
    local first = chunk.parts[1]
    local text = latex and pandoc.RawInline("latex", "\\dlschunk{" .. lib.tex(lib.chunk_title(name)) .. "}")
      or pandoc.Str(title)
    return W.link({ text }, first.id, first.anchor, "chunk-ref")
  end
  local word = c.text:match("^[%a_][%w_]*")
  local known = word and dep.identifiers[word]
  if known and not c.text:match("^[%w_]+[%.%-/]") then
    local text = latex and pandoc.RawInline("latex", "\\dlscode{" .. code.breakable(c.text) .. "}")
      or pandoc.Code(c.text)
    return W.link({ text }, known.id, known.anchor, "identifier")
  end
  if latex then return pandoc.RawInline("latex", "\\dlscode{" .. code.breakable(c.text) .. "}") end
end

-- Headings ------------------------------------------------------------------------------------

local function raw_block(text) return pandoc.RawBlock(latex and "latex" or "html", text) end
local function raw(text) return pandoc.RawInline(latex and "latex" or "html", text) end

local function header(h)
  local number = h.attributes["weave-number"] or ""
  if number ~= "" and dep.number then number = dep.number .. "." .. number else number = "" end
  local anchor = h.level == 1 and "" or lib.anchor(h.identifier)
  if latex then
    local command
    if h.level == 1 then
      command = dep.number and string.format("\\dlschapter{%s}{%s}", lib.tex(dep.number),
        dep.number:match("^%d") and "Chapter" or "Appendix") or "\\dlsfrontchapter"
    elseif h.level == 2 then command = number ~= "" and "\\dlssection{" .. number .. "}" or "\\dlsplainsection"
    elseif h.level == 3 then command = number ~= "" and "\\dlssubsection{" .. number .. "}" or "\\dlsplainsubsection"
    else command = "\\dlsminor" end
    local out = pandoc.List { raw(command .. "{") }
    out:extend(h.content)
    out:insert(raw("}{" .. W.tex_label(dep.id, anchor) .. "}"))
    return pandoc.Plain(out)
  end
  local content = pandoc.List {}
  if h.level == 1 and dep.number then
    content:extend { pandoc.Span({ pandoc.Str(dep.number) }, pandoc.Attr("", { "secno" })), pandoc.Space() }
  elseif number ~= "" then
    content:extend { pandoc.Span({ pandoc.Str(number) }, pandoc.Attr("", { "secno" })), pandoc.Space() }
  end
  content:extend(h.content)
  if W.format == "html" and h.level > 1 then
    content:insert(raw(' <a class="anchor" href="#' .. lib.html(anchor) .. '" aria-label="Link to this section">#</a>'))
  end
  return pandoc.Header(h.level, content, pandoc.Attr(W.format == "epub" and W.tex_label(dep.id, anchor) or h.level > 1 and anchor or "chapter",
    h.classes:includes("unnumbered") and { "unnumbered" } or {}))
end

-- Figures, tables, equations --------------------------------------------------------------------

local function figure_number(el, word)
  local number = el.attributes["weave-number"]
  return word .. "\u{a0}" .. (dep.number and dep.number .. "." or "") .. number
end

local function tex_width(width)
  local percent = width and width:match("^([%d.]+)%%$")
  if percent then return string.format("%.3f\\linewidth", percent / 100) end
  local size, unit = (width or ""):match("^([%d.]+)%s*(%a*)$")
  if size and (unit == "px" or unit == "") then return string.format("%.2fpt", size * 0.75) end
  if size and (unit == "pt" or unit == "cm" or unit == "mm" or unit == "in" or unit == "em") then return size .. unit end
  return ""
end

local function tex_picture(image)
  local path = image.src:gsub("%.svg$", ".pdf")
  if image.src:match("%.svg$") then path = W.tex_figures .. "/" .. path
  else path = dep.figures[image.src] or path end
  return "\\dlspicture{" .. tex_width(image.attributes.width) .. "}{" .. path .. "}"
end

local function figure(div)
  local image, caption = div.content[1].content[1], div.content[2].content
  local anchor, label = lib.anchor(div.identifier), figure_number(div, "Figure")
  local source = dep.figures[image.src]
  if latex then
    local out = pandoc.List { raw("\\begin{figure}[htbp]\\centering\n"
      .. (source and tex_picture(image) or "\\dlsmissing{" .. lib.tex(image.src) .. "}")
      .. "\\dlscaption{" .. anchor .. "}{" .. label .. "}{") }
    out:extend(caption)
    out:insert(raw("}\\end{figure}"))
    return pandoc.Plain(out)
  end
  local numbered = pandoc.List { pandoc.Span({ pandoc.Str(label .. ".") }, pandoc.Attr("", { "number" })), pandoc.Space() }
  numbered:extend(caption)
  if not source then
    return pandoc.Div({ pandoc.Para { pandoc.Span({ pandoc.Str("The figure " .. image.src .. " is not there yet.") },
      pandoc.Attr("", { "missing" })) }, pandoc.Para(numbered) }, pandoc.Attr(anchor, { "figure" }))
  end
  if W.format == "epub" then
    image.src = source
    image.classes = {}
    image.caption = pandoc.List { pandoc.Str(image.attributes.alt or stringify(caption)) }
    image.attributes = {}
    return pandoc.Div({ pandoc.Plain { image }, pandoc.Para(numbered) }, pandoc.Attr(anchor, { "figure" }))
  end
  local width = dep.widths[image.src]
  local percent = image.attributes.width and image.attributes.width:match("^[%d.]+%%$")
  local style = {}
  if width then style[#style + 1] = string.format("--natural:%.0fpx", width) end
  if percent then style[#style + 1] = "--width:" .. percent end
  local class = image.classes:includes("keep-colours") and "keep-colours" or dep.themed[image.src] and "themed"
  -- A picture that can be played with: a script fills this place, and hides the picture.
  local program = image.attributes.program and lib.html(image.attributes.program)
  local played = program and '<div class="program" data-program="' .. program .. '" hidden></div>' or ""
  local open = '<figure id="' .. lib.html(anchor) .. '"' .. (class and ' class="' .. class .. '"' or "")
    .. '><div class="picture"' .. (#style > 0 and ' style="' .. table.concat(style, ";") .. '"' or "")
    .. '><a href="' .. lib.html(image.src) .. '" aria-label="' .. lib.html(label) .. ', at full size"><img src="'
    .. lib.html(image.src) .. '" alt="'
    .. lib.html(image.attributes.alt or stringify(caption)) .. '" loading="lazy"></a></div>\n' .. played .. '<figcaption>'
  local out = pandoc.List { raw(open) }
  out:extend(numbered)
  out:insert(raw("</figcaption></figure>" .. (program and '<script src="' .. program .. '.js" defer></script>' or "")))
  return pandoc.Plain(out)
end

-- Width of a text in characters of prose; code is set in a wider font.
local function width_of(blocks)
  local width, longest = 0, 0
  for _, block in ipairs(blocks) do
    local text = stringify(block)
    local n = utf8.len(text) or #text
    local mono = 0
    pandoc.walk_block(block, { Code = function(c) mono = mono + #c.text end })
    width = math.max(width, n + mono * 0.15)
    for word in text:gmatch("%S+") do longest = math.max(longest, math.min(utf8.len(word) or #word, 18)) end
  end
  return width, longest
end

-- Column widths for LaTeX: natural where the table fits, else the room shared out by need. Also the
-- number of lines the table will have, so that a small one is not broken across pages.
local function tex_columns(tbl)
  local room = 86 - 2.4 * (#tbl.colspecs - 1)
  local natural, least, rows = {}, {}, {}
  local function row(r)
    local column, widths = 1, {}
    rows[#rows + 1] = widths
    for _, cell in ipairs(r.cells) do
      local contents = cell.contents or cell.content
      local span = cell.col_span or 1
      if span == 1 then
        local width, word = width_of(contents)
        natural[column] = math.max(natural[column] or 1, width)
        widths[column] = width
        least[column] = math.max(least[column] or 1, word)
      end
      column = column + span
    end
  end
  for _, r in ipairs(tbl.head.rows) do row(r) end
  for _, body in ipairs(tbl.bodies) do
    for _, r in ipairs(body.body) do row(r) end
  end
  local total = 0
  for i = 1, #tbl.colspecs do
    natural[i], least[i] = natural[i] or 1, least[i] or 1
    total = total + natural[i]
  end
  if total <= room then
    for i, spec in ipairs(tbl.colspecs) do tbl.colspecs[i] = { spec[1], nil } end
    return tbl, #rows
  end
  -- Small columns keep what they need; the others divide the rest in proportion.
  local left, open, width = room, {}, {}
  for i = 1, #natural do open[i] = true end
  repeat
    local again, sum, count = false, 0, 0
    for i in pairs(open) do sum, count = sum + natural[i], count + 1 end
    for i in pairs(open) do
      local share = left * natural[i] / sum
      local fair = left / count
      if natural[i] <= fair then
        width[i], left, open[i], again = natural[i] + 1, left - natural[i] - 1, nil, true
        break
      elseif share < least[i] + 1 then
        width[i], left, open[i], again = least[i] + 1, left - least[i] - 1, nil, true
        break
      end
    end
    if not again then
      for i in pairs(open) do width[i] = left * natural[i] / sum end
    end
  until not again
  local specs, sum = {}, 0
  for i = 1, #natural do sum = sum + width[i] end
  for i, spec in ipairs(tbl.colspecs) do specs[i] = { spec[1], width[i] / math.max(sum, room) } end
  tbl.colspecs = specs
  local lines = 0
  for _, widths in ipairs(rows) do
    local most = 1
    for i, w in pairs(widths) do most = math.max(most, math.ceil(w * 1.1 / width[i])) end
    lines = lines + most
  end
  return tbl, lines, sum > room * 1.02
end

-- Too many columns even so: smaller type, less between the columns.
local function tightened(tbl, tight)
  if not tight then return { tbl } end
  return { raw_block("\\begingroup\\dlstight"), tbl, raw_block("\\endgroup") }
end

local function table_block(tbl)
  local number = tbl.attributes["weave-number"]
  local anchor = lib.anchor(tbl.identifier)
  tbl.attributes = {}
  tbl.identifier = ""
  if number then
    local caption = tbl.caption.long
    local label = "Table\u{a0}" .. (dep.number and dep.number .. "." or "") .. number
    local first = caption[1]
    if latex then
      tbl.caption = { long = {} }
      local narrow, lines, tight = tex_columns(tbl)
      local inlines = pandoc.List { raw("\\dlstablecaption{" .. anchor .. "}{" .. label .. "}{" .. lines .. "}{") }
      inlines:extend(first.content)
      inlines:insert(raw("}"))
      local out = pandoc.List { pandoc.Plain(inlines) }
      out:extend(tightened(narrow, tight))
      return out
    end
    local inlines = pandoc.List { pandoc.Span({ pandoc.Str(label .. ".") }, pandoc.Attr("", { "number" })), pandoc.Space() }
    inlines:extend(first.content)
    caption[1] = pandoc.Plain(inlines)
    tbl.caption = { long = caption }
  end
  if latex then
    local narrow, _, tight = tex_columns(tbl)
    return tightened(narrow, tight)
  end
  -- The browser knows the widths better than the dashes of the source do.
  for i, spec in ipairs(tbl.colspecs) do tbl.colspecs[i] = { spec[1], nil } end
  return pandoc.Div({ tbl }, pandoc.Attr(number and anchor or "", { "table" },
    W.format == "html" and { { "tabindex", "0" }, { "role", "region" }, { "aria-label", "Table" } } or {}))
end

local function equation(span)
  if not span.classes:includes("weave-equation") then return nil end
  local number = span.attributes["weave-number"]
  local math = span.content[1]
  if number then number = (dep.number and dep.number .. "." or "") .. number end
  local anchor = lib.anchor(span.identifier)
  if latex then
    local text = math.text:gsub("^%s+", ""):gsub("%s+$", "")
    if not number then return raw("\\[" .. text .. "\\]") end
    return raw("\\dlsequation{" .. anchor .. "}{" .. number .. "}{" .. text .. "}")
  end
  local content = pandoc.List { pandoc.Span({ math }, pandoc.Attr("", { "formula" })) }
  if number then content:insert(pandoc.Span({ pandoc.Str("(" .. number .. ")") }, pandoc.Attr("", { "number" }))) end
  return pandoc.Span(content, pandoc.Attr(number and anchor or "", { "equation" }))
end

-- TeX that not every Pandoc can turn into MathML, in words that all can. A plain parenthesis is made
-- an ordinary atom: Pandoc 2.17 would let it grow like \left( and space it out.
local function mathml_text(text)
  local _, opened = text:gsub("\\[bB]igg?l%f[%A]", "")
  local _, closed = text:gsub("\\[bB]igg?r%f[%A]", "")
  if opened == closed and not text:find("&", 1, true) and not text:find("\\\\", 1, true) then
    -- Sizes by hand are nothing to MathML; brackets that grow with what they hold are.
    text = text:gsub("\\[bB]igg?l%f[%A]", "\\left"):gsub("\\[bB]igg?r%f[%A]", "\\right")
  end
  text = text:gsub("\\mathrm%s*{(%a%a+)}", "\\text{%1}")
  -- A comma between digits is part of the number; as an operator it would be spaced.
  text = text:gsub("(%d){,}(%d)", "%1\\text{,}%2")
  text = text:gsub("\\([bB]igg?)[lrm]%f[%A]", "\\%1"):gsub("\\middle%s*|", "\\mid "):gsub("\\operatorname%*", "\\operatorname")
    :gsub("\\bmod%f[%A]", "\\;\\text{mod}\\;")
  local out, at = {}, 1
  while at <= #text do
    local from, to = text:find("\\%a+%s*[()]?", at)
    local group = text:match("^\\%a*text%a*%s*()%b{}", at) or text:match("^\\math[rtb][mtf]%s*()%b{}", at)
    if group then
      local _, stop = text:find("%b{}", group)
      out[#out + 1] = text:sub(at, stop)
      at = stop + 1
    elseif from == at then
      local command, paren = text:sub(from, to):match("^\\(%a+)%s*([()]?)$")
      if paren ~= "" and not command:match("^[bB]igg?$") and command ~= "left" and command ~= "right" then
        out[#out + 1] = text:sub(from, to - 1) .. "{" .. paren .. "}"
      else
        out[#out + 1] = text:sub(from, to)
      end
      at = to + 1
    else
      local c = text:sub(at, at)
      if c == "\\" then
        out[#out + 1] = text:sub(at, at + 1)
        at = at + 2
      else
        out[#out + 1] = (c == "(" or c == ")") and "{" .. c .. "}" or c
        at = at + 1
      end
    end
  end
  return table.concat(out)
end

local function math(m)
  if latex then return nil end
  local long = m.mathtype == "InlineMath" and #m.text > 24
  m.text = mathml_text(m.text)
  -- May be wider than a small screen; then it scrolls inside itself.
  if long and W.format == "html" then return pandoc.Span({ m }, pandoc.Attr("", { "long-math" })) end
  return m
end

-- Divs ----------------------------------------------------------------------------------------

local function wrapped(open, blocks, close)
  local out = pandoc.List { pandoc.RawBlock(latex and "latex" or "html", open) }
  out:extend(blocks)
  out:insert(pandoc.RawBlock(latex and "latex" or "html", close))
  return out
end

local function div(d)
  if d.classes:includes("weave-figure") then return figure(d) end
  if d.classes:includes("exercise") then
    local number = figure_number(d, "Exercise")
    local anchor = lib.anchor(d.identifier)
    local first = d.content[1]
    local heading = latex and raw("\\dlsexercisenumber{" .. anchor .. "}{" .. number .. ".}")
      or pandoc.Span({ pandoc.Str(number .. ".") }, pandoc.Attr("", { "number" }))
    if first and (first.t == "Para" or first.t == "Plain") then
      local inlines = pandoc.List { heading, pandoc.Space() }
      inlines:extend(first.content)
      d.content[1] = pandoc.Para(inlines)
    else
      d.content:insert(1, pandoc.Para { heading })
    end
    if latex then return wrapped("\\begin{dlsexercise}", d.content, "\\end{dlsexercise}") end
    d.attributes = {}
    d.identifier = anchor
    return d
  end
  if d.classes:includes("aside") then
    if latex then return wrapped("\\begin{dlsaside}", d.content, "\\end{dlsaside}") end
    return wrapped('<aside class="aside">', d.content, "</aside>")
  end
  if d.classes:includes("warning") then
    if latex then return wrapped("\\begin{dlswarning}", d.content, "\\end{dlswarning}") end
    return wrapped('<div class="warning" role="note">', d.content, "</div>")
  end
end

local function image(i)
  if i.classes:includes("weave-in-figure") then return nil end
  local source = dep.figures[i.src]
  if not source then return nil end
  if latex then return raw(tex_picture(i)) end
  if W.format == "epub" then i.src = source end
  return i
end

-- The document ----------------------------------------------------------------------------------

function Pandoc(doc)
  W.format = stringify(doc.meta["weave-format"])
  W.tex_figures = doc.meta["weave-figures"] and stringify(doc.meta["weave-figures"]) or ""
  dep = lib.load(stringify(doc.meta["weave-dep"]))
  latex = W.format == "latex"
  W.dep, W.latex = dep, latex

  if dep.list then
    doc.blocks = indexes.blocks(W)
  else
    code.highlight(W, doc, stringify(doc.meta["weave-dep"]):gsub("/dep/", "/highlight/"))
    doc = doc:walk { Table = table_block }   -- first: it measures the text of the cells
    doc = doc:walk { Code = inline_code, Cite = cite, Link = link, Image = image, Math = math }
    doc = doc:walk { Span = equation, Header = header,
                     CodeBlock = function(b) return code.block(W, b) end }
    doc = doc:walk { Div = div }
  end
  doc.meta = {}
  if W.format == "html" then page.metadata(W, doc) end
  if dep.book.bibliography and not dep.list then
    doc.meta.bibliography = pandoc.MetaInlines { pandoc.Str(dep.book.bibliography) }
    doc.meta["link-citations"] = true
    doc.meta["reference-section-title"] = pandoc.MetaInlines { pandoc.Str("References") }
  end
  doc.meta["weave-format"] = pandoc.MetaInlines { pandoc.Str(W.format) }
  doc.meta["weave-id"] = pandoc.MetaInlines { pandoc.Str(dep.id) }
  return doc
end
