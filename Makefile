# SPDX-License-Identifier: GPL-2.0
#
# make help says what there is. The work is done by Kbuild (the module) and scripts/ (all else).

scripts := $(CURDIR)/scripts

.PHONY: all demo test test-debug test-crash bench lint doc lab fmt clean modules_install help
.DEFAULT_GOAL := all

# The module, for KDIR= (default: the running kernel's tree; in the build root: the prepared one).
all clean modules_install:
	@$(scripts)/module $@

demo test test-debug test-crash bench lint doc lab fmt:
	@$(scripts)/$@ $(ARGS)

help:
	@sed -n 's/^#: //p' $(firstword $(MAKEFILE_LIST))

#: make                   build dm_replicate.ko for KDIR= (default: the running kernel)
#: make modules_install   install it there
#: make demo              two hosts in QEMU: replicate, cut the power, take over, compare (root)
#: make test              every test; closing line: N passed, N failed, N skipped (root)
#: make lint              formatting, clippy, layers, generated files
#: make lab               two hosts in QEMU with a shell on each (root)
#: make bench             side by side with raw disk, NVMe/TCP and DRBD (root)
#: make test-crash        more kills and a longer exploration (root)
#: make test-debug        KUnit and scenarios under KASAN, lockdep and kmemleak (root; builds a kernel with clang)
#: make doc               rustdoc of the three crates
#: make fmt               format the Rust code
#: make clean             remove what was built in this tree (the cache stays)
#:
#: ARGS= is passed on, for example: make test ARGS='--list', make test ARGS='link_cut'
#: MIRROR= Debian archive to take the build root from, DMREPL_CACHE= where heavy things lie
