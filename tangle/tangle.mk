# tangle.mk - builds build/bin/tangle, the literate tool. Included by the main Makefile.

TANGLE_SOURCES := $(sort $(wildcard tangle/*.c))
TANGLE_OBJECTS := $(TANGLE_SOURCES:tangle/%.c=build/tangle/%.o)
TANGLE_PACKAGES := libcmark yaml-0.1 jansson libxxhash
TANGLE_CFLAGS := -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -O2 -g

build/tangle/%.o: tangle/%.c tangle/tangle.mk
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)$(CC) $(TANGLE_CFLAGS) $$(pkg-config --cflags $(TANGLE_PACKAGES)) -MMD -MP -c -o $@ $<

build/bin/tangle: $(TANGLE_OBJECTS)
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	$(Q)$(CC) -o $@ $(TANGLE_OBJECTS) $$(pkg-config --libs $(TANGLE_PACKAGES))

-include $(TANGLE_OBJECTS:.o=.d)
