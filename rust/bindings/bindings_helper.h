/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the kernel's own `bindings` crate lacks: bindgen reads this file, and emits of it what
 * bindgen_parameters lists. Sorted alphabetically.
 */
#include <crypto/sha2.h>
#include <crypto/utils.h>
#include <linux/backing-dev.h>
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/blk-cgroup.h>
#include <linux/crc32.h>
#include <linux/device-mapper.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/kthread.h>
#include <linux/llist.h>
#include <linux/net.h>
#include <linux/tcp.h>
#include <linux/umh.h>
#include <net/genetlink.h>
#include <net/sock.h>

#include "../generated/netlink.h"

/* bindgen cannot evaluate the casts in these. */
const blk_mode_t RUST_CONST_HELPER_BLK_OPEN_READ = BLK_OPEN_READ;
const blk_mode_t RUST_CONST_HELPER_BLK_OPEN_WRITE = BLK_OPEN_WRITE;
const blk_opf_t RUST_CONST_HELPER_REQ_FUA = REQ_FUA;
const blk_opf_t RUST_CONST_HELPER_REQ_IDLE = REQ_IDLE;
const blk_opf_t RUST_CONST_HELPER_REQ_NOUNMAP = REQ_NOUNMAP;
const blk_opf_t RUST_CONST_HELPER_REQ_PREFLUSH = REQ_PREFLUSH;
const blk_opf_t RUST_CONST_HELPER_REQ_SYNC = REQ_SYNC;
const blk_opf_t RUST_CONST_HELPER_REQ_OP_BITMASK = REQ_OP_MASK;
const blk_features_t RUST_CONST_HELPER_BLK_FEATURE_POLL = BLK_FEAT_POLL;
const blk_features_t RUST_CONST_HELPER_BLK_FEATURE_ATOMIC_WRITES = BLK_FEAT_ATOMIC_WRITES;
const blk_status_t RUST_CONST_HELPER_BLK_STATUS_NOTSUPP = BLK_STS_NOTSUPP;
const blk_status_t RUST_CONST_HELPER_BLK_STATUS_TIMEOUT = BLK_STS_TIMEOUT;
const blk_status_t RUST_CONST_HELPER_BLK_STATUS_NOSPC = BLK_STS_NOSPC;
const blk_status_t RUST_CONST_HELPER_BLK_STATUS_TRANSPORT = BLK_STS_TRANSPORT;
const blk_status_t RUST_CONST_HELPER_BLK_STATUS_TARGET = BLK_STS_TARGET;
const blk_status_t RUST_CONST_HELPER_BLK_STATUS_MEDIUM = BLK_STS_MEDIUM;
const blk_status_t RUST_CONST_HELPER_BLK_STATUS_PROTECTION = BLK_STS_PROTECTION;
const blk_status_t RUST_CONST_HELPER_BLK_STATUS_RESOURCE = BLK_STS_RESOURCE;
const blk_status_t RUST_CONST_HELPER_BLK_STATUS_IOERR = BLK_STS_IOERR;
const blk_status_t RUST_CONST_HELPER_BLK_STATUS_DM_REQUEUE = BLK_STS_DM_REQUEUE;
const blk_status_t RUST_CONST_HELPER_BLK_STATUS_AGAIN = BLK_STS_AGAIN;
const blk_status_t RUST_CONST_HELPER_BLK_STATUS_OFFLINE = BLK_STS_OFFLINE;
const blk_status_t RUST_CONST_HELPER_BLK_STATUS_INVAL = BLK_STS_INVAL;
const gfp_t RUST_CONST_HELPER_GFP_MASK_KERNEL = GFP_KERNEL;
const gfp_t RUST_CONST_HELPER_GFP_MASK_NOIO = GFP_NOIO;
/* Not the system's last pages either, though a reclaimer that writes to us may have them: the network needs them. */
const gfp_t RUST_CONST_HELPER_GFP_MASK_NOWAIT = GFP_NOWAIT | __GFP_NOWARN | __GFP_NOMEMALLOC;
const int RUST_CONST_HELPER_IPPROTO_NR_TCP = IPPROTO_TCP;
const unsigned int RUST_CONST_HELPER_TASK_STATE_IDLE = TASK_IDLE;
const unsigned int RUST_CONST_HELPER_TASK_STATE_KILLABLE = TASK_KILLABLE;
const unsigned int RUST_CONST_HELPER_TASK_STATE_NORMAL = TASK_NORMAL;
const unsigned int RUST_CONST_HELPER_TASK_STATE_UNINTERRUPTIBLE = TASK_UNINTERRUPTIBLE;
