# Deep Learning System Design: the running book.
#
#   make         set up, tangle, build, run the tour, weave the book
#   make test    prove that text and code agree, then run every test
#
# Everything else (make help) is a part of these two.  BACKEND=virtual, the
# default, compiles the CUDA sources for virtual GPUs with gcc alone;
# BACKEND=cuda compiles the same sources with nvcc for real ones.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules --no-print-directory
ifeq ($(MAKELEVEL)$(filter -j%,$(MAKEFLAGS)),0)
MAKEFLAGS += -j$(shell nproc)
endif

BACKEND ?= virtual
# make V=1 shows the commands.
Q := $(if $(V),,@)
B := build/$(BACKEND)

.PHONY: spills all test help setup tangled check untangle lib tour tour-3d tour-moe runs record edition \
        test-all test-mpi test-hosts test-page bench bench-comm bench-cpu bench-vgpu \
        bench-plan clean
all: runs
	@$(MAKE) book

help:
	@sed -n 's/^#   //p' Makefile
	@printf '%s\n' 'make check      text and code agree' \
	  'make untangle   carry edits made in code/ and tests/ back into chapters/' \
	  'make lib        build/bin/dls and build/bin/tests' \
	  'make tour       train a GPT on four virtual GPUs' \
	  'make tour-3d    the same on eight, --dp 2 --pp 2 --tp 2' \
  'make tour-moe   a mixture of experts on eight, DualPipe with --pp 4 --dp 2 --ep 2' \
	  'make book       weave HTML, PDF and EPUB into build/book/' \
	  'make html|pdf|epub' \
	  'make record     commit-ready copies of the runs and figures of this build' \
	  'make edition    the same after renewing the corpus' \
	  'make BACKEND=cuda lib   the same sources for real GPUs' \
	  'make bench-comm all-reduce of this book beside Open MPI'\''s' \
	  'make bench-plan three searches of the planner over 1,024 GPUs, timed' \
	  'make test-all  the same as make test without samples, and under other launchers' \
	  'make test-page the interactive figure in chromium' \
	  'make spills     no attention kernel spills registers (needs nvcc)' \
	  'make clean      remove build/'

# --- set up -----------------------------------------------------------------
build/setup.stamp: tangle/setup.sh
	@tangle/setup.sh core
	@mkdir -p build && touch $@
build/setup-book.stamp: tangle/setup.sh build/setup.stamp
	@tangle/setup.sh book
	@touch $@
setup: build/setup.stamp build/setup-book.stamp

include tangle/tangle.mk
$(TANGLE_OBJECTS): | build/setup.stamp

# --- tangle -----------------------------------------------------------------
# Runs on every make; it takes milliseconds and leaves unchanged files alone.
# Make starts again when the list of sources has changed.
ifeq ($(filter help clean setup untangle,$(MAKECMDGOALS)),)
include build/sources.mk
endif
build/sources.mk: build/bin/tangle FORCE
	@build/bin/tangle write $(TANGLE_FLAGS)
	@{ echo "SOURCES := \\"; find build/src -type f | LC_ALL=C sort | sed 's/$$/ \\/'; \
	   echo; } > $@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi
FORCE:
tangled: build/sources.mk
check: build/bin/tangle
	build/bin/tangle check $(TANGLE_FLAGS)
untangle: build/bin/tangle
	build/bin/tangle untangle

# --- compile ----------------------------------------------------------------
CC := gcc
CXX := g++
WARN := -Wall -Wextra -Werror
PACKAGES := yaml-0.1 jansson libxxhash libutf8proc
INCLUDES := -Ibuild/src/code
LIBS := $(shell pkg-config --libs $(PACKAGES) 2>/dev/null) -lm -lpthread
# DWARF 4: addr2line of binutils 2.40 misnames the first lines of a file in DWARF 5.
COMMON = -g -gdwarf-4 -O2 -MMD -MP $(WARN) $(INCLUDES) -DDLS_BACKEND_$(BACKEND)=1
CFLAGS = -std=c11 -D_GNU_SOURCE $(COMMON) $(EXTRA)
CXXFLAGS = -std=c++17 $(COMMON) $(EXTRA)
# The plain-C operations are the fast path of a CPU: let the compiler use all of it.
HOST_KERNEL := -O3 -march=native -fopenmp -fno-math-errno -ffp-contract=fast

PROBE_C := $(filter build/src/code/vgpu/probe%.c build/src/code/vgpu/profile%.c \
                    build/src/code/vgpu/check%.c,$(SOURCES))
LIB_C := $(filter-out %/rewrite.c %/rewrite_text.c %/gpu_cuda.c %/plugin_mpi.c build/src/code/cli/% \
           build/src/code/parallel/pipeline/page/% $(PROBE_C), \
           $(filter build/src/code/%.c,$(SOURCES)))
LIB_CU := $(filter build/src/code/%.cu,$(SOURCES))
LIB_OTHER := $(filter build/src/code/%.S build/src/code/%.cpp,$(SOURCES))
CLI_C := $(filter build/src/code/cli/%.c,$(SOURCES))
# Benchmarks are programs of their own; homework is compiled by dls cc, in its test.
is_bench = $(findstring /bench_,$(1))$(findstring /homework/,$(1))$(findstring /peer_,$(1))
TEST_C := $(foreach f,$(filter build/src/tests/%.c,$(SOURCES)),$(if $(call is_bench,$f),,$f))
TEST_CU := $(foreach f,$(filter build/src/tests/%.cu,$(SOURCES)),$(if $(call is_bench,$f),,$f))
BENCH_C := $(foreach f,$(filter build/src/tests/%.c build/src/tests/%.cu,$(SOURCES)),$(if $(findstring /bench_,$f),$f))
HOST_C := $(filter build/src/code/kernels/%_host.c,$(LIB_C))

object = $(patsubst build/src/%,$(B)/%.o,$(1))
probed = $(patsubst build/src/%,$(B)/%.probed.o,$(1))
is_probed = $(findstring /probed_,$(1))
HOST_O := $(foreach bits,16 32 64,$(patsubst build/src/%,$(B)/%.$(bits).o,$(HOST_C)))

ifeq ($(BACKEND),cuda)
CUDA_HOME ?= $(patsubst %/bin/nvcc,%,$(shell command -v nvcc || echo /usr/local/cuda/bin/nvcc))
INCLUDES += -isystem $(CUDA_HOME)/include
GENCODE := -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90,code=sm_90
# Files with hopper in their name need instructions that only sm_90a has.
HOPPER := -gencode arch=compute_90a,code=sm_90a
gencode = $(if $(findstring hopper,$(1)),$(HOPPER),$(GENCODE))
NVFLAGS := -std=c++17 -O3 -g -lineinfo -Ibuild/src/code \
           -DDLS_BACKEND_cuda=1 -Werror all-warnings -Xcompiler -Wall,-Wextra
LIB_C := $(filter-out $(HOST_C) build/src/code/vgpu/gpu_virtual% \
           build/src/code/vgpu/simt%,$(LIB_C)) \
         build/src/code/vgpu/gpu_cuda.c
LIBS += -L$(CUDA_HOME)/lib64 -lcudart -lcublas -lcublasLt -lgomp -lstdc++
# The optimizer may run on the CPU beside a real GPU, too.
LIB_O := $(call object,$(LIB_C) $(LIB_CU)) $(filter %/adamw_host.c.16.o \
           %/adamw_host.c.32.o %/adamw_host.c.64.o,$(HOST_O))
$(B)/%.cu.o: build/src/%.cu
	@mkdir -p $(@D)
	@echo "  NVCC  $<"
	$(Q)$(CUDA_HOME)/bin/nvcc $(NVFLAGS) $(call gencode,$<) -MMD -MP -c $< -o $@
else
INCLUDES += -Ibuild/src/code/vgpu/shadow
LIBS += -ldnnl -lgomp -lstdc++
LIB_C := $(filter-out $(HOST_C),$(LIB_C))
LIB_O := $(call object,$(LIB_C) $(LIB_CU) $(LIB_OTHER)) $(HOST_O)
REWRITER := $(addprefix build/src/code/vgpu/,rewrite.c rewrite_text.c)
build/bin/vgpu-rewrite: $(REWRITER) build/src/code/vgpu/rewrite.h | build/setup.stamp
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)$(CC) -std=c11 -D_GNU_SOURCE -g -O2 $(WARN) -Ibuild/src/code $(REWRITER) -o $@
$(B)/code/comm/reduce.c.o: EXTRA += $(HOST_KERNEL)
# A probed object: every access and basic block calls a hook (appendix A, probes).
$(B)/code/vgpu/gpu_virtual_rows.c.o $(B)/code/vgpu/gpu_virtual_panels.c.o \
$(B)/code/vgpu/gpu_virtual_copy.c.o: EXTRA += $(HOST_KERNEL)
PROBE_PACKAGES := libdw capstone
PROBE_LIBS := $(shell pkg-config --libs $(PROBE_PACKAGES) 2>/dev/null)
PROBE_O := $(call object,$(PROBE_C))
PROBED := @code/vgpu/probed.flags $(if $(filter x86_64,$(shell uname -m)),-fcf-protection=branch)
PROBE_A := $(B)/libdls-probe.a
$(PROBE_A): $(PROBE_O)
	@rm -f $@
	@echo "  AR    $@"
	$(Q)ar rcs $@ $(PROBE_O)
$(B)/code/vgpu/probe_requests.c.o $(B)/code/vgpu/profile_count.c.o $(B)/code/vgpu/check_access.c.o \
$(B)/code/vgpu/check_words.c.o $(B)/code/vgpu/check_phrases.c.o \
$(B)/code/vgpu/probe_phrases.c.o: EXTRA += $(HOST_KERNEL)
$(B)/%.cu.probed.o: build/src/%.cu build/bin/vgpu-rewrite \
                       code/vgpu/probed.flags code/vgpu/probed.names code/vgpu/probed.local
	@mkdir -p $(@D)
	@build/bin/vgpu-rewrite $< -o $(@:.o=.cpp)
	@echo "  CXX   $@"
	$(Q)$(CXX) -Icode/vgpu/shadow $(CXXFLAGS) $(PROBED) -I$(dir $<) -c $(@:.o=.cpp) -o $@
	$(Q)objcopy --redefine-syms=code/vgpu/probed.names \
	  --localize-symbols=code/vgpu/probed.local $@
$(B)/%.cu.o: build/src/%.cu build/bin/vgpu-rewrite
	@mkdir -p $(@D)
	@build/bin/vgpu-rewrite $< -o $(@:.o=.cpp)
	@echo "  CXX   $<"
	$(Q)$(CXX) $(CXXFLAGS) -I$(dir $<) -c $(@:.o=.cpp) -o $@
endif

$(B)/%.c.o: build/src/%.c | build/setup.stamp
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)$(CC) $(CFLAGS) -c $< -o $@
$(B)/%.cpp.o: build/src/%.cpp | build/setup.stamp
	@mkdir -p $(@D)
	@echo "  CXX   $<"
	$(Q)$(CXX) $(CXXFLAGS) -c $< -o $@
$(B)/%.S.o: build/src/%.S | build/setup.stamp
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)$(CC) -g -Ibuild/src/code -c $< -o $@
define host_rule
$(B)/%.c.$(1).o: build/src/%.c | build/setup.stamp
	@mkdir -p $$(@D)
	@echo "  CC    $$<"
	$(Q)$$(CC) $$(CFLAGS) $$(HOST_KERNEL) -DDLS_REAL=$(1) -c $$< -o $$@
endef
$(foreach bits,16 32 64,$(eval $(call host_rule,$(bits))))

CLI_O := $(call object,$(CLI_C))
$(B)/code/cli/toolchain.c.o: EXTRA += -DDLS_LINK_PLAIN='"$(LIBS)"' \
                                       -DDLS_LINK_PROBED='"$(PROBE_LIBS)"'
# Tests of the probes are probed in every program; the others in tests.probed.
PROBED_TEST_CU := $(foreach f,$(TEST_CU),$(if $(call is_probed,$f),$f))
PLAIN_TEST_CU := $(filter-out $(PROBED_TEST_CU),$(TEST_CU))
TEST_O := $(call object,$(TEST_C) $(PLAIN_TEST_CU))
ifneq ($(BACKEND),cuda)
TEST_O += $(call probed,$(PROBED_TEST_CU))
endif
-include $(patsubst %.o,%.d,$(LIB_O) $(CLI_O) $(TEST_O) $(PROBE_O) \
           $(call probed,$(LIB_CU) $(TEST_CU)) $(call object,$(BENCH_C)))

$(B)/libdls.a: $(LIB_O)
	@rm -f $@
	@echo "  AR    $@"
	$(Q)ar rcs $@ $(LIB_O)
$(B)/bin/dls: $(CLI_O) $(B)/libdls.a
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	$(Q)$(CC) -o $@ $(CLI_O) $(B)/libdls.a $(LIBS)
$(B)/bin/tests: $(TEST_O) $(PROBE_A) $(B)/libdls.a
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	$(Q)$(CC) -o $@ $(TEST_O) $(PROBE_A) $(B)/libdls.a -lcriterion $(PROBE_LIBS) $(LIBS)
# The same programs with probes, beside them: dls check and dls profile run these.
PROBED_O := $(call object,$(LIB_C) $(LIB_OTHER)) $(HOST_O) $(call probed,$(LIB_CU))
$(B)/libdls.probed.a: $(PROBED_O) $(PROBE_O)
	@rm -f $@
	@echo "  AR    $@"
	$(Q)ar rcs $@ $^
$(B)/bin/dls.probed: $(CLI_O) $(B)/libdls.probed.a
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	$(Q)$(CC) -o $@ $(CLI_O) $(B)/libdls.probed.a $(PROBE_LIBS) $(LIBS)
$(B)/bin/tests.probed: $(call object,$(TEST_C)) $(call probed,$(TEST_CU)) $(B)/libdls.probed.a
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	$(Q)$(CC) -o $@ $^ -lcriterion $(PROBE_LIBS) $(LIBS)
# build/bin holds the programs of the backend that was built last.
build/bin/dls build/bin/tests build/bin/dls.probed build/bin/tests.probed: build/bin/%: \
    $(B)/bin/%
	@mkdir -p $(@D)
	@cp $< $@.new && mv $@.new $@

ifeq ($(BACKEND),cuda)
lib: $(B)/bin/dls $(B)/bin/tests
else
lib: build/bin/dls build/bin/tests build/bin/dls.probed
endif

# The schedules as the book's page runs them, with its small C library: for the test.
PAGE_C := $(wildcard code/parallel/pipeline/*.[ch] code/parallel/pipeline/page/* \
                     code/parallel/pipeline/page/include/*)
$(B)/page.a: $(PAGE_C) $(addprefix code/base/,status.c args.c suggest.c) | tangled
	@echo "  PAGE  $@"
	$(Q)CC="$(CC)" sh code/parallel/pipeline/page/build.sh native $@
build/bin/page: $(B)/tests/parallel/peer_page.c.o $(B)/page.a
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	$(Q)$(CC) -o $@ $^
lib: build/bin/page
-include $(B)/tests/parallel/peer_page.c.d
# The page itself in a browser without a window, where chromium is installed.
test-page: html
	@sh tests/parallel/page_in_browser.sh build/book/html/pipeline-pictures.html

# Registers of the attention kernels: fails when the compiler moves some to memory.
spills: tangled
	@sh tests/kernels/spills.sh $(or $(shell command -v nvcc),/usr/local/cuda/bin/nvcc) \
	  -std=c++17 -O3 -Ibuild/src/code -DDLS_BACKEND_cuda=1

# MPI is a library beside the programs, built where mpicc is found and loaded by ranks that
# mpirun started (Debian: libopenmpi-dev, openmpi-bin).
MPICC := $(shell command -v mpicc)
build/bin/dls-mpi.so: build/src/code/comm/plugin_mpi.c build/src/code/comm/carrier.h
	@mkdir -p $(@D)
	@echo "  MPICC $<"
	$(Q)$(MPICC) -std=c11 -D_GNU_SOURCE -g -O2 $(WARN) -fPIC -shared -Ibuild/src/code $< -o $@
lib: $(if $(MPICC),build/bin/dls-mpi.so)

# What a program is made of, but for line numbers: an edit of prose moves those, and must
# not make the tour or the recorded runs stale.  tangle run reads PROGRAM.id.
CLEAN_CODE := $(patsubst build/src/%,%,$(filter build/src/code/%,$(SOURCES)))
CLEAN_TESTS := $(patsubst build/src/%,%,$(filter build/src/tests/%,$(SOURCES)))
build/code.id: $(CLEAN_CODE)
	@cat $(CLEAN_CODE) | sha256sum > $@
build/tests.id: $(CLEAN_CODE) $(CLEAN_TESTS)
	@cat $(CLEAN_CODE) $(CLEAN_TESTS) | sha256sum > $@
build/bin/dls.id build/bin/dls.probed.id build/virtual/libdls.a.id: build/code.id
	@mkdir -p $(@D) && cp $< $@
build/bin/tests.id: build/tests.id
	@mkdir -p $(@D) && cp $< $@
IDS := build/bin/dls.id build/bin/dls.probed.id build/bin/tests.id build/virtual/libdls.a.id

# --- test -------------------------------------------------------------------
test: check lib html
	@tangle/run-tests.sh build/bin/tests
# A test that takes a sample for the sake of time takes everything here.
test-all: export DLS_GRID := full
test-all: test
	@$(MAKE) test-mpi
	@$(MAKE) test-hosts

# Benchmarks are programs of their own, tests/FOLDER/bench_NAME: they print ratios.
BENCH := $(patsubst build/src/tests/%,$(B)/bench/%,$(basename $(BENCH_C)))
$(B)/bench/%: $(B)/tests/%.c.o $(B)/libdls.a
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	$(Q)$(CC) -o $@ $< $(B)/libdls.a $(LIBS)
$(B)/bench/%: $(B)/tests/%.cu.o $(B)/libdls.a
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	$(Q)$(CC) -o $@ $< $(B)/libdls.a $(LIBS)
$(B)/bench/%.probed: $(B)/tests/%.cu.probed.o $(B)/libdls.probed.a
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	$(Q)$(CC) -o $@ $< $(B)/libdls.probed.a $(PROBE_LIBS) $(LIBS)
$(B)/bench/vgpu/bench_probe: $(B)/bench/vgpu/bench_probe.probed
bench: $(BENCH)
	@for b in $(BENCH); do echo "== $$b"; $$b || exit; done
# llm.c's CPU trainer, with its own flags, from the folder PEER; see bench_cpu.c.
PEER_CC ?= $(CC)
$(B)/bench/peer: build/src/tests/train/peer_llmc.c $(PEER)/train_gpt2.c
	@mkdir -p $(@D)
	$(Q)$(PEER_CC) -Ofast -march=native -fopenmp -DOMP -w -I$(PEER) $< -o $@ -lm
bench-cpu: $(B)/bench/train/bench_cpu $(B)/bench/train/bench_products \
           $(if $(PEER),$(B)/bench/peer)
	@export OMP_NUM_THREADS=$(THREADS) DLS_THREADS=$(THREADS); $(ALONE) sh -c \
	  '$(B)/bench/train/bench_products && $< $(if $(PEER),$(B)/bench/peer $(B)/bench)'
THREADS ?= 2
# Before all other processes, where that is allowed: threads that wait for each other at
# a barrier lose a time slice whenever one of them loses its core.
ALONE = $(shell chrt -f 1 true 2>/dev/null && echo chrt -f 1)
$(B)/tests/train/bench_cpu.c.o $(B)/tests/train/bench_products.c.o: EXTRA += $(HOST_KERNEL)
# Ours beside Open MPI's, where mpicc is found.
MPI_PEER := $(if $(MPICC),$(B)/bench/peer_mpi)
$(B)/bench/peer_mpi: build/src/tests/comm/peer_mpi.c build/src/tests/comm/rounds.h
	@mkdir -p $(@D)
	$(Q)$(MPICC) -std=c11 -D_GNU_SOURCE -O2 $(WARN) $< -o $@
# The tests of the collectives as ranks of mpirun, and as ranks on two hosts.
test-mpi: build/bin/tests $(if $(MPICC),build/bin/dls-mpi.so)
	@$(if $(MPICC),OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 \
	  sh tests/comm/launched.sh mpirun $< mpirun --oversubscribe -n,\
	  echo "mpi: not tried: mpicc is not installed")
test-hosts: build/bin/tests
	@! sh tests/comm/two_hosts.sh try || \
	  sh tests/comm/launched.sh "two hosts" $< sh tests/comm/two_hosts.sh
bench-comm: $(B)/bench/comm/bench_local $(MPI_PEER)
	@$^
bench-vgpu: $(filter $(B)/bench/vgpu/%,$(BENCH))
	@for b in $^; do echo "== $$b"; $$b || exit; done
# The planner's three searches over 1,024 GPUs.
bench-plan: $(B)/bench/train/bench_plan
	@$<

# --- the tour: chapter 1 trains a GPT on the book ---------------------------
TOUR := build/tour
CORPUS ?= figures/tour/corpus.txt
build/tour/done: build/code.id $(CORPUS) | build/bin/dls
	@rm -rf $(TOUR) && mkdir -p $(TOUR) build/figures/tour
	build/bin/dls run -n 4 -- train --config code/cli/tour.yaml \
	  --corpus $(CORPUS) --output $(TOUR)
	build/bin/dls metrics $(TOUR)/metrics.jsonl --columns step,loss > $(TOUR)/loss.tsv
	build/bin/dls metrics $(TOUR)/metrics.jsonl --columns step,validation_loss \
	  > $(TOUR)/validation.tsv
	gnuplot -e "tour='$(TOUR)'; out='build/figures/tour/loss.svg'" code/cli/loss.gp
	@tangle/theme-svg.sh build/figures/tour/loss.svg
	cp $(TOUR)/timeline.svg $(TOUR)/metrics.jsonl $(TOUR)/trace.json build/figures/tour/
	@touch $@
tour: build/tour/done

# The same on eight: two replicas of two stages that are cut in two (chapter 7).
build/tour-3d/done: build/code.id $(CORPUS) | build/bin/dls
	@rm -rf $(@D) && mkdir -p $(@D) build/figures/mesh
	build/bin/dls run -n 8 -- train --config code/cli/tour.yaml --corpus $(CORPUS) \
	  --dp 2 --pp 2 --tp 2 --output $(@D)
	cp $(@D)/timeline.svg build/figures/mesh/timeline.svg
	@touch $@
tour-3d: build/tour-3d/done

# A mixture of experts on eight: DualPipe over four, two replicas that share the experts;
# and the same on one (chapter 8).
build/tour-moe/done: build/code.id code/cli/tour-moe.yaml $(CORPUS) | build/bin/dls
	@rm -rf $(@D) && mkdir -p $(@D)/one build/figures/expert-mesh
	build/bin/dls run -n 8 -- train --config code/cli/tour-moe.yaml --corpus $(CORPUS) \
	  --pp 4 --dp 2 --ep 2 --set pipeline.schedule=dualpipe --output $(@D)
	build/bin/dls run -n 1 -- train --config code/cli/tour-moe.yaml --corpus $(CORPUS) \
	  --set train.micro_batch=16 --output $(@D)/one
	cp $(@D)/timeline.svg build/figures/expert-mesh/timeline.svg
	@touch $@
tour-moe: build/tour-moe/done

# The .run blocks of the chapters; tangle reruns those whose command or needs changed.
runs: build/run/stamp
build/run/stamp: build/bin/dls build/bin/dls.probed build/bin/tests $(IDS) build/tour/done \
                 build/tour-3d/done build/tour-moe/done build/sources.mk \
                 $(wildcard chapters/*.md)
	@mkdir -p $(@D)
	build/bin/tangle run --slow
	@touch $@

# --- weave ------------------------------------------------------------------
include tangle/weave.mk
book pdf: | build/setup-book.stamp

# --- an edition: what the book shows is renewed and committed ---------------
edition: build/bin/tangle
	@mkdir -p figures/tour
	@grep -o 'chapters/[^],} ]*\.md' book.yaml | xargs cat > build/corpus.new
	@mv build/corpus.new figures/tour/corpus.txt
	@$(MAKE) record
# The same without a new corpus: the prose that quotes losses stays true.
record: runs
	@mkdir -p figures/run
	cp -r build/figures/. figures/
	cp build/run/*.json figures/run/

clean:
	rm -rf build
