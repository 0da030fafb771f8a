-- Looks over the woven book: every link of the HTML leads somewhere, every anchor is there once, every
-- picture exists and has a description, nothing is loaded from elsewhere, the colours have the contrast
-- of WCAG 2.1 AA in both themes, and LaTeX had nothing to complain of. All complaints at once.
--
-- Run by tangle/weave/check. Environment: WEAVE_OUT.

local here = PANDOC_SCRIPT_FILE:match("^(.*/)") or "./"
local lib = dofile(here .. "lib.lua")
local out = os.getenv("WEAVE_OUT") or "build/book"
local html = out .. "/html"

local complaints, counts = {}, { pages = 0, links = 0, pictures = 0, pending = 0 }
local function complain(where, what) complaints[#complaints + 1] = where .. ": " .. what end

local function percent_decoded(s) return (s:gsub("%%(%x%x)", function(h) return string.char(tonumber(h, 16)) end)) end

local pages, names = {}, {}
for name in (os.getenv("WEAVE_PAGES") or ""):gmatch("%S+") do
  local text = lib.read_file(html .. "/" .. name)
  if not text then complain(name, "the page is missing")
  else
    local ids = {}
    for id in text:gmatch('<[^>]-%sid="([^"]*)"') do
      id = lib.unhtml(id)
      if ids[id] then complain(name, "two elements have the id " .. id) end
      ids[id] = true
    end
    pages[name] = { text = text, ids = ids }
    names[#names + 1] = name
  end
end

local function check_link(name, target)
  counts.links = counts.links + 1
  if target:match("^https?://") or target:match("^mailto:") then return end
  local file, fragment = target:match("^([^#?]*)%??[^#]*#?(.*)$")
  file, fragment = percent_decoded(file), percent_decoded(fragment)
  local page = file == "" and name or file
  if pages[page] then
    if fragment ~= "" and not pages[page].ids[fragment] then complain(name, "link to " .. target .. ": no such place") end
  elseif not lib.exists(html .. "/" .. page) then
    complain(name, "link to " .. target .. ": no such page")
  end
end

local seen_pictures = {}
local function check_picture(name, tag)
  counts.pictures = counts.pictures + 1
  local source = lib.unhtml(tag:match('src="([^"]*)"') or "")
  local alt = tag:match('alt="([^"]*)"')
  if not alt or alt == "" then complain(name, "the picture " .. source .. " has no description") end
  if source:match("^%a+:") then complain(name, "the picture " .. source .. " is loaded from elsewhere")
  elseif not seen_pictures[source] then
    seen_pictures[source] = true
    local text = lib.read_file(html .. "/" .. percent_decoded(source))
    if not text then complain(name, "the picture " .. source .. " is missing")
    elseif source:match("%.svg$") and not text:match("</svg>%s*$") then
      complain(name, "the picture " .. source .. " is cut short")
    end
  end
end

for _, name in ipairs(names) do
  counts.pages = counts.pages + 1
  local text = pages[name].text
  for target in text:gmatch('<a%s[^>]-href="([^"]*)"') do check_link(name, lib.unhtml(target)) end
  for tag in text:gmatch("<img[^>]*>") do check_picture(name, tag) end
  for element, attributes in text:gmatch("<(%l+)%s([^>]*)>") do
    if element == "script" or element == "link" or element == "iframe" then
      local source = attributes:match('src="([^"]*)"') or attributes:match('href="([^"]*)"')
      if source and source:match("^%a*:?//") then complain(name, source .. " is loaded from elsewhere")
      elseif source and not lib.exists(html .. "/" .. source) then complain(name, source .. " is missing") end
    end
  end
  for what in text:gmatch('class="missing">([^<]*)<') do complain(name, "not resolved: " .. lib.unhtml(what)) end
  for what in text:gmatch('<span class="math[^"]*">([^<]*)') do complain(name, "no MathML for: " .. lib.unhtml(what)) end
  for _ in text:gmatch('class="run not%-yet"') do counts.pending = counts.pending + 1 end
end

-- Contrast --------------------------------------------------------------------------------------

local function luminance(colour)
  local function channel(hex)
    local c = tonumber(hex, 16) / 255
    return c <= 0.03928 and c / 12.92 or ((c + 0.055) / 1.055) ^ 2.4
  end
  local r, g, b = colour:match("^#(%x%x)(%x%x)(%x%x)$")
  return 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b)
end
local function contrast(a, b)
  local x, y = luminance(a), luminance(b)
  if x < y then x, y = y, x end
  return (x + 0.05) / (y + 0.05)
end
local function colours(block)
  local set = {}
  for name, value in (block or ""):gmatch("%-%-([%w-]+):%s*(#%x%x%x%x%x%x)%f[^%x]") do set[name] = value end
  return set
end
local css = lib.read_file(here .. "html/style.css")
local light, dark = colours(css:match(":root {(.-)\n}")), colours(css:match(':root%[data%-theme="dark"%] {(.-)\n}'))
local asked = colours(css:match('@media %(prefers%-color%-scheme: dark%) {%s*:root:not[^{]*{(.-)\n  }'))
for name, value in pairs(dark) do
  if asked[name] ~= value then complain("style.css", "the dark theme has two values of --" .. name) end
end
local grounds = { paper = { "ink", "soft", "link", "accent" }, bar = { "ink", "link", "accent" }, warn = { "ink", "link" },
  mark = { "ink" }, code = { "ink", "soft", "link", "accent", "c-kw", "c-ty", "c-pp", "c-st", "c-nu", "c-co", "c-fu", "c-at" } }
for theme, set in pairs { light = light, dark = dark } do
  for ground, inks in pairs(grounds) do
    for _, ink in ipairs(inks) do
      if not set[ink] or not set[ground] then complain("style.css", "no colour " .. ink .. " or " .. ground .. " in the " .. theme .. " theme")
      else
        local ratio = contrast(set[ink], set[ground])
        if ratio < 4.5 then
          complain("style.css", string.format("%s theme: %s on %s has a contrast of %.2f, less than 4.5", theme, ink, ground, ratio))
        end
      end
    end
  end
end

-- LaTeX -----------------------------------------------------------------------------------------

local log = lib.read_file(out .. "/tex/book.log")
if log then
  local line_before, seen = "", {}
  for line in log:gmatch("[^\n]+") do
    local excess = line:match("^Overfull \\hbox %(([%d.]+)pt too wide%)")
    local text = excess and tonumber(excess) > 1 and line
      or line:match("^LaTeX Warning: Reference.*undefined") or line:match("^LaTeX Warning: Hyper reference.*undefined")
      or line:match("^LaTeX Warning: Label .* multiply defined") or line:match("^Missing character.*")
    if text and not seen[text] then
      seen[text] = true
      complain(out .. "/tex/book.log", text)
    end
    line_before = line
  end
end

function Pandoc(doc)
  for _, complaint in ipairs(complaints) do lib.warn(complaint) end
  local summary = string.format("%d pages, %d links, %d pictures", counts.pages, counts.links, counts.pictures)
    .. (counts.pending > 0 and ", " .. counts.pending .. " command(s) not yet run" or "")
  if #complaints > 0 then lib.fail("check-book: " .. summary .. "; " .. #complaints .. " complaint(s)") end
  lib.warn("check-book: " .. summary .. "; nothing to complain of")
  return doc
end
