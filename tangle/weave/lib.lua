-- What the passes of the weave share: files, escapes, names of anchors and of pages.
-- Runs inside Pandoc 2.17 (Lua 5.3) and Pandoc 3 (Lua 5.4); uses nothing that only one of them has.

local M = {}

-- Files ---------------------------------------------------------------------------------------

function M.read_file(path)
  local f = io.open(path, "rb")
  if not f then return nil end
  local text = f:read("a")
  f:close()
  return text
end

function M.exists(path)
  local f = io.open(path, "rb")
  if f then f:close() end
  return f ~= nil
end

-- Written aside and renamed; a file that would not change keeps its time stamp, which is what
-- keeps make from weaving a page again when nothing that it shows has changed.
function M.write_if_changed(path, text)
  if M.read_file(path) == text then return false end
  M.write_file(path, text)
  return true
end

function M.write_file(path, text, suffix)
  local aside = path .. (suffix or "") .. ".new"
  local f, why = io.open(aside, "wb")
  if not f then error("weave: cannot write " .. aside .. ": " .. tostring(why), 0) end
  f:write(text)
  f:close()
  local ok, problem = os.rename(aside, path)
  if not ok then error("weave: cannot rename " .. aside .. ": " .. tostring(problem), 0) end
end

-- The natural width of an SVG in CSS pixels.
function M.svg_width(path)
  local head = (M.read_file(path) or ""):sub(1, 2000):match("<svg[^>]*>")
  if not head then return nil end
  local width, unit = head:match('[%s]width="([%d.]+)(%a*)"')
  if width and (unit == "" or unit == "px") then return tonumber(width) end
  if width and unit == "pt" then return tonumber(width) * 4 / 3 end
  local box = head:match('viewBox="[%d.-]+[%s,]+[%d.-]+[%s,]+([%d.]+)')
  return tonumber(box)
end

-- Whether an SVG has colours of its own for the dark theme (a browser gives it the page's scheme).
function M.svg_themed(path)
  return (M.read_file(path) or ""):find("prefers-color-scheme", 1, true) ~= nil or nil
end

-- Tables as Lua source, with sorted keys so that equal tables give equal files.
local function serialise(value, out, indent)
  local t = type(value)
  if t == "string" then out[#out + 1] = string.format("%q", value):gsub("\\\n", "\\n")
  elseif t == "number" or t == "boolean" then out[#out + 1] = tostring(value)
  elseif t == "table" then
    out[#out + 1] = "{"
    local inner = indent .. " "
    local n = #value
    for i = 1, n do
      out[#out + 1] = "\n" .. inner
      serialise(value[i], out, inner)
      out[#out + 1] = ","
    end
    local keys = {}
    for k in pairs(value) do
      if not (math.type(k) == "integer" and k >= 1 and k <= n) then keys[#keys + 1] = k end
    end
    table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
    for _, k in ipairs(keys) do
      out[#out + 1] = "\n" .. inner .. "[" .. (type(k) == "string" and string.format("%q", k) or tostring(k)) .. "]="
      serialise(value[k], out, inner)
      out[#out + 1] = ","
    end
    out[#out + 1] = "}"
  else
    error("weave: a " .. t .. " cannot be written to a file", 0)
  end
end

function M.to_lua(value)
  local out = {"return "}
  serialise(value, out, "")
  out[#out + 1] = "\n"
  return table.concat(out)
end

function M.load(path)
  local chunk, why = loadfile(path)
  if not chunk then error("weave: cannot read " .. path .. ": " .. tostring(why), 0) end
  return chunk()
end

-- Names ---------------------------------------------------------------------------------------

-- A label of the chapters (sec:ring, fig:ring) as an anchor that HTML, EPUB and LaTeX all accept.
function M.anchor(label) return (label:gsub("[^%w_.-]", "-")) end
function M.file_anchor(path) return "file-" .. path:gsub("[^%w]", "-") end
function M.chunk_anchor(name, k) return "chunk-" .. name .. "-" .. k end
function M.chunk_title(name) return (name:gsub("-", " ")) end

local kinds = { fig = "figure", tbl = "table", eq = "equation", sec = "section" }
M.kinds = kinds

-- The label of a cross-reference, or nil when the key is a citation. @Fig:x opens a sentence.
function M.reference(key)
  local prefix, rest = key:match("^(%a+):(.+)$")
  if prefix and kinds[prefix:lower()] then
    return prefix:lower() .. ":" .. rest, prefix:match("^%u") ~= nil
  end
  if key:match("^[eE]x%-") then return "ex-" .. key:sub(4), key:match("^E") ~= nil end
  return nil
end

-- Names that mean one thing wherever they stand: the library's, CUDA's, and kernels. Other names of
-- the index (a struct "report" of one file) would be linked where they are somebody's variable.
function M.public(word)
  return word:match("^[Dd][Ll][Ss]_%w") or word:match("^cuda%u") or word:match("^cublas%u") or word:match("^nccl%u")
    or word:match("%w_kernel$")
end

-- Escapes -------------------------------------------------------------------------------------

local html_escapes = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;" }
function M.html(s) return (tostring(s):gsub('[&<>"]', html_escapes)) end

local entities = { amp = "&", lt = "<", gt = ">", quot = '"', ["#39"] = "'", nbsp = "\u{a0}" }
function M.unhtml(s)
  return (s:gsub("&(#?%w+);", function(e)
    if entities[e] then return entities[e] end
    local hex = e:match("^#x(%x+)$")
    if hex then return utf8.char(tonumber(hex, 16)) end
    local dec = e:match("^#(%d+)$")
    if dec then return utf8.char(tonumber(dec)) end
    return "&" .. e .. ";"
  end))
end

local tex_escapes = {
  ["\\"] = "\\textbackslash{}", ["{"] = "\\{", ["}"] = "\\}", ["$"] = "\\$", ["&"] = "\\&",
  ["#"] = "\\#", ["%"] = "\\%", ["_"] = "\\_", ["^"] = "\\textasciicircum{}", ["~"] = "\\textasciitilde{}",
  ["<"] = "\\textless{}", [">"] = "\\textgreater{}", ["'"] = "'", ['"'] = "\\textquotedbl{}", ["|"] = "\\textbar{}",
  ["`"] = "\\textasciigrave{}",
}
-- Text of prose (chunk names, titles): ligatures of the font stay, special characters do not act.
function M.tex(s)
  return (tostring(s):gsub('[\\{}$&#%%_^~<>"|`]', tex_escapes))
end
-- Text of programs. Their font has no ligatures, so quotes and brackets can stand as they are, which
-- spares LaTeX some of its work on tens of thousands of lines.
function M.tex_code(s)
  s = s:gsub("[\\{}$&#%%_^~]", tex_escapes)
  -- Scripts that the fonts do not have, seen in tests of UTF-8: the number in a frame.
  return (s:gsub("[\xE2-\xF4][\x80-\xBF]+", function(c)
    local point = utf8.len(c) == 1 and utf8.codepoint(c)
    if point and (point >= 0x2E80 and point <= 0xD7FF or point >= 0xF900 and point <= 0xFAFF
                  or point >= 0xFF00 and point <= 0xFFEF or point >= 0x1F300) then
      return string.format("\\dlsnoglyph{%X}", point)
    end
  end))
end

-- Messages ------------------------------------------------------------------------------------

-- Ends the pass with a message and no traceback, which would be of the weave and not of the book.
function M.fail(text)
  io.stderr:write(text, "\n")
  os.exit(1)
end

function M.warn(text) io.stderr:write(text, "\n") end

-- The lines of a source file in which a pattern-free string stands, for messages.
function M.find_line(files, needle)
  for _, file in ipairs(files) do
    local n = 0
    for line in (M.read_file(file) or ""):gmatch("([^\n]*)\n?") do
      n = n + 1
      local from, to = 1, nil
      repeat
        from, to = line:find(needle, from, true)
        if from and not line:sub(to + 1, to + 1):match("[%w_-]") then return file, n, from end
        if from then from = to + 1 end
      until not from
    end
  end
  return files[1], nil, nil
end

-- Edit distance, for "did you mean".
function M.nearest(word, candidates)
  local best, best_distance
  for candidate in pairs(candidates) do
    if math.abs(#candidate - #word) <= 4 then
      local row = {}
      for j = 0, #candidate do row[j] = j end
      for i = 1, #word do
        local diagonal = row[0]
        row[0] = i
        for j = 1, #candidate do
          local cost = word:byte(i) == candidate:byte(j) and 0 or 1
          local value = math.min(row[j] + 1, row[j - 1] + 1, diagonal + cost)
          diagonal = row[j]
          row[j] = value
        end
      end
      local d = row[#candidate]
      if d <= math.max(2, #word // 3)
         and (not best or d < best_distance or d == best_distance and candidate < best) then
        best, best_distance = candidate, d
      end
    end
  end
  return best
end

return M
