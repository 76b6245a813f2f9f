// SPDX-License-Identifier: GPL-2.0
/*
 * Functions Rust cannot call directly (inlines and macros), one file per C header family.
 *
 * Sorted alphabetically.
 */
#include "blk.c"
#include "genl.c"
#include "mm.c"
#include "net.c"
#include "sched.c"
