# The weave: the book as HTML, PDF and EPUB. Included by the Makefile; also works alone:
#   make -f tangle/weave.mk html
#
# WEAVE_MISSING=skip  leaves out what book.yaml or a reference names and nobody has written yet,
#                     with a warning, where otherwise the book is not made.

TANGLE := build/bin/tangle
# The pages are made side by side, also when make was not asked to do things side by side.
WEAVE_SUB = +@$(MAKE) --no-print-directory $(if $(findstring -j,$(MAKEFLAGS)),,-j$(shell nproc 2>/dev/null || echo 2)) \
            -f tangle/weave/pages.mk

.PHONY: book html pdf epub check-book weave-index

book: weave-index
	$(WEAVE_SUB) html pdf epub
html pdf epub: weave-index
	$(WEAVE_SUB) $@
# Two of them in one call share their first steps: one after the other.
pdf: | $(filter html,$(MAKECMDGOALS))
epub: | $(filter html pdf,$(MAKECMDGOALS))

# Always asked for, since it costs milliseconds; written only when it changed.
weave-index: $(TANGLE)
	@mkdir -p build/book
	@$(TANGLE) index --lua >build/index.lua.new || { rm -f build/index.lua.new; exit 1; }
	@if cmp -s build/index.lua.new build/index.lua; then rm build/index.lua.new; else mv build/index.lua.new build/index.lua; fi

# Links, anchors, figures, sizes, colours and the log of LaTeX: every complaint at once.
check-book: book
	@tangle/weave/check build/book
