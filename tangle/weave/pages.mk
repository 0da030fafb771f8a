# The pages of the woven book. Called by tangle/weave.mk with build/index.lua up to date; not meant to
# be called by hand. Three passes (see number.lua, resolve.lua, weave.lua), every page on its own:
#
#   chapters/*.md --number--> ast/ID.json, scan/ID.lua, html/search/ID.js
#   scan/*.lua, build/index.lua --resolve--> dep/ID.lua      (time stamp kept when nothing changed)
#   ast/ID.json, dep/ID.lua --weave--> html/ID.html, tex/ID.tex, epub/ID.json

PANDOC ?= pandoc
W      := tangle/weave
OUT    ?= build/book
INDEX  ?= build/index.lua
LUNR   ?= $(firstword $(wildcard /usr/share/javascript/lunr/lunr.min.js /usr/share/javascript/lunr/lunr.js))
export WEAVE_OUT := $(OUT)
export WEAVE_INDEX := $(INDEX)

HTML := $(OUT)/html
$(shell mkdir -p $(OUT)/ast $(OUT)/scan $(OUT)/dep $(OUT)/highlight $(HTML)/search $(OUT)/tex $(OUT)/epub)

include $(OUT)/chapters.mk

$(OUT)/chapters.mk: $(INDEX) $(W)/plan.lua $(W)/lib.lua
	@$(PANDOC) -f markdown -t plain -L $(W)/plan.lua -o /dev/null /dev/null

EXTRA := index chunks identifiers
SCANS := $(CHAPTERS:%=$(OUT)/scan/%.lua)
COMMON := $(W)/weave.lua $(W)/lib.lua $(W)/code.lua $(W)/indexes.lua $(W)/page.lua $(W)/refs.lua

.PHONY: html pdf epub
.SECONDARY:
.DELETE_ON_ERROR:

# First pass --------------------------------------------------------------------------------------

define scan_rule
$(OUT)/ast/$1.json: $(FILES_$1) $(W)/number.lua $(W)/lib.lua
	@$(PANDOC) -f markdown -t json -L $(W)/number.lua -M weave-id=$1 -M weave-scan=$(OUT)/scan/$1.lua \
	  -M weave-search=$(HTML)/search/$1.js $(FILES_$1) -o $$@
endef
$(foreach c,$(CHAPTERS),$(eval $(call scan_rule,$c)))

# Second pass -------------------------------------------------------------------------------------

# A folder's time stamp tells that a picture came or went.
PICTURE_FOLDERS := $(wildcard figures/. figures/*/. build/figures/. build/figures/*/.)

$(OUT)/resolved: $(PICTURE_FOLDERS) $(CHAPTERS:%=$(OUT)/ast/%.json) $(INDEX) $(OUT)/chapters.mk $(W)/resolve.lua $(W)/lib.lua $(BIBLIOGRAPHY)
	@$(PANDOC) -f markdown -t plain -L $(W)/resolve.lua -o /dev/null /dev/null
	@touch $@

# Not touched by the second pass when they did not change: their pages stay as they are.
$(CHAPTERS:%=$(OUT)/dep/%.lua) $(EXTRA:%=$(OUT)/dep/%.lua) $(OUT)/figures.list: $(OUT)/resolved ;

# HTML --------------------------------------------------------------------------------------------

WEAVE = $(PANDOC) -L $(W)/weave.lua --citeproc -L $(W)/refs.lua --wrap=preserve \
        $(if $(filter skip,$(WEAVE_MISSING)),,--fail-if-warnings)
# The extra pages have no text of their own.
PAGE  = $(PANDOC) -f markdown /dev/null -L $(W)/weave.lua --wrap=preserve

$(CHAPTERS:%=$(HTML)/%.html): $(HTML)/%.html: $(OUT)/ast/%.json $(OUT)/dep/%.lua $(COMMON) $(W)/html/page.html $(BIBLIOGRAPHY)
	@echo "  HTML  $*"
	@$(WEAVE) -f json $< -t html5 --mathml --template $(W)/html/page.html \
	  -M weave-format=html -M weave-dep=$(OUT)/dep/$*.lua -o $@

$(EXTRA:%=$(HTML)/%.html): $(HTML)/%.html: $(OUT)/dep/%.lua $(COMMON) $(W)/html/page.html
	@echo "  HTML  $*"
	@$(PAGE) -t html5 --template $(W)/html/page.html -M weave-format=html -M weave-dep=$< -o $@

$(HTML)/%: $(W)/html/%
	@cp $< $@

# The program of a picture with program=NAME is NAME.js: a module as base64, and the script that runs it. A
# page from a disk may fetch nothing. Without clang the module is empty, and the picture stands still.
PIPELINE := code/parallel/pipeline
WASM := $(if $(shell command -v clang && command -v wasm-ld),$(OUT)/pipeline.wasm)
$(OUT)/pipeline.wasm: $(wildcard $(PIPELINE)/*.[ch] $(PIPELINE)/page/* $(PIPELINE)/page/include/*) \
                      $(addprefix code/base/,status.c args.c suggest.c)
	@echo "  WASM  $@"
	@sh $(PIPELINE)/page/build.sh wasm $@
$(HTML)/pipeline.js: $(PIPELINE)/page/figure.js $(WASM)
	@{ printf 'var pipelineWasm = "%s";\n' "$(if $(WASM),$$(base64 -w 0 $(WASM)))"; cat $<; } >$@.new
	@mv $@.new $@
$(HTML)/lunr.js: $(LUNR)
	@test -n "$(LUNR)" || { echo "weave: lunr.js is not installed (Debian: libjs-lunr)" >&2; exit 1; }
	@cp $(LUNR) $@

html: $(CHAPTERS:%=$(HTML)/%.html) $(EXTRA:%=$(HTML)/%.html) $(HTML)/style.css $(HTML)/script.js $(HTML)/icon.svg \
      $(HTML)/pipeline.js \
      $(HTML)/lunr.js $(OUT)/figures.list
	@$(W)/figures html $(OUT)/figures.list $(HTML)
	@$(W)/stale $(HTML) $(CHAPTERS) $(EXTRA)

# PDF ---------------------------------------------------------------------------------------------

TEX := $(OUT)/tex

$(CHAPTERS:%=$(TEX)/%.tex): $(TEX)/%.tex: $(OUT)/ast/%.json $(OUT)/dep/%.lua $(COMMON) $(BIBLIOGRAPHY)
	@$(WEAVE) -f json $< -t latex -M weave-format=latex -M weave-dep=$(OUT)/dep/$*.lua -M weave-figures=$(TEX) -o $@
$(TEX)/chunks.tex $(TEX)/identifiers.tex: $(TEX)/%.tex: $(OUT)/dep/%.lua $(COMMON)
	@$(PAGE) -t latex -M weave-format=latex -M weave-dep=$< -o $@

# Touched when a picture changed, was drawn anew, or is another one than before.
$(OUT)/figures.stamp: $(OUT)/figures.list FORCE
	@$(W)/figures stamp $(OUT)/figures.list $@
.PHONY: FORCE

$(OUT)/dls.pdf: $(CHAPTERS:%=$(TEX)/%.tex) $(TEX)/chunks.tex $(TEX)/identifiers.tex $(OUT)/figures.stamp \
                $(W)/tex/book.tex $(W)/latex
	@echo "  PDF   $@"
	@$(W)/figures pdf $(OUT)/figures.list $(TEX)
	@$(W)/latex $(W)/tex/book.tex $(TEX) $@

pdf: $(OUT)/dls.pdf
	@:

# EPUB --------------------------------------------------------------------------------------------

EPUB := $(OUT)/epub
export WEAVE_IDS := $(CHAPTERS) chunks identifiers

$(CHAPTERS:%=$(EPUB)/%.json): $(EPUB)/%.json: $(OUT)/ast/%.json $(OUT)/dep/%.lua $(COMMON) $(BIBLIOGRAPHY)
	@$(WEAVE) -f json $< -t json -M weave-format=epub -M weave-dep=$(OUT)/dep/$*.lua -o $@
$(EPUB)/chunks.json $(EPUB)/identifiers.json: $(EPUB)/%.json: $(OUT)/dep/%.lua $(COMMON)
	@$(PAGE) -t json -M weave-format=epub -M weave-dep=$< -o $@

$(OUT)/dls.epub: $(WEAVE_IDS:%=$(EPUB)/%.json) $(W)/combine.lua $(W)/epub/epub.css $(OUT)/figures.stamp
	@echo "  EPUB  $@"
	@$(PANDOC) -f markdown /dev/null -L $(W)/combine.lua -t epub3 --mathml --toc --toc-depth=2 --css $(W)/epub/epub.css -o $@.new
	@mv $@.new $@

epub: $(OUT)/dls.epub
	@:
