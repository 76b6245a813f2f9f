// SPDX-License-Identifier: ((GPL-2.0 WITH Linux-syscall-note) OR BSD-3-Clause)
/* Do not edit directly, auto-generated from: */
/*	Documentation/netlink/specs/dm-replicate.yaml */
/* YNL-GEN kernel source */
/* To regenerate run: scripts/ynl-regen */

#include <net/netlink.h>
#include <net/genetlink.h>

#include "netlink.h"

#include <uapi/linux/dm_replicate.h>

/* DM_REPLICATE_CMD_GROUP_ADD - do */
static const struct nla_policy dm_replicate_group_add_nl_policy[DM_REPLICATE_A_GROUP_WINDOW_BYTES + 1] = {
	[DM_REPLICATE_A_GROUP_NAME] = { .type = NLA_NUL_STRING, .len = DM_REPLICATE_NAME_MAX, },
	[DM_REPLICATE_A_GROUP_SRL] = { .type = NLA_NUL_STRING, .len = DM_REPLICATE_PATH_MAX, },
	[DM_REPLICATE_A_GROUP_ROLE] = NLA_POLICY_MAX(NLA_U32, 1),
	[DM_REPLICATE_A_GROUP_SECRET] = NLA_POLICY_MAX_LEN(DM_REPLICATE_SECRET_MAX),
	[DM_REPLICATE_A_GROUP_SRL_POLICY] = NLA_POLICY_MAX(NLA_U32, 1),
	[DM_REPLICATE_A_GROUP_POOL_BYTES] = { .type = NLA_UINT, },
	[DM_REPLICATE_A_GROUP_COMMIT_INTERVAL_MS] = { .type = NLA_U32, },
	[DM_REPLICATE_A_GROUP_COMMIT_BYTES] = { .type = NLA_UINT, },
	[DM_REPLICATE_A_GROUP_START_WAIT_MS] = { .type = NLA_U32, },
	[DM_REPLICATE_A_GROUP_WINDOW_BYTES] = { .type = NLA_UINT, },
};

/* DM_REPLICATE_CMD_GROUP_DEL - do */
static const struct nla_policy dm_replicate_group_del_nl_policy[DM_REPLICATE_A_GROUP_NAME + 1] = {
	[DM_REPLICATE_A_GROUP_NAME] = { .type = NLA_NUL_STRING, .len = DM_REPLICATE_NAME_MAX, },
};

/* DM_REPLICATE_CMD_GROUP_GET - do */
static const struct nla_policy dm_replicate_group_get_nl_policy[DM_REPLICATE_A_GROUP_NAME + 1] = {
	[DM_REPLICATE_A_GROUP_NAME] = { .type = NLA_NUL_STRING, .len = DM_REPLICATE_NAME_MAX, },
};

/* DM_REPLICATE_CMD_GROUP_SET - do */
static const struct nla_policy dm_replicate_group_set_nl_policy[DM_REPLICATE_A_GROUP_WINDOW_BYTES + 1] = {
	[DM_REPLICATE_A_GROUP_NAME] = { .type = NLA_NUL_STRING, .len = DM_REPLICATE_NAME_MAX, },
	[DM_REPLICATE_A_GROUP_SECRET] = NLA_POLICY_MAX_LEN(DM_REPLICATE_SECRET_MAX),
	[DM_REPLICATE_A_GROUP_SRL_POLICY] = NLA_POLICY_MAX(NLA_U32, 1),
	[DM_REPLICATE_A_GROUP_POOL_BYTES] = { .type = NLA_UINT, },
	[DM_REPLICATE_A_GROUP_COMMIT_INTERVAL_MS] = { .type = NLA_U32, },
	[DM_REPLICATE_A_GROUP_COMMIT_BYTES] = { .type = NLA_UINT, },
	[DM_REPLICATE_A_GROUP_START_WAIT_MS] = { .type = NLA_U32, },
	[DM_REPLICATE_A_GROUP_WINDOW_BYTES] = { .type = NLA_UINT, },
};

/* DM_REPLICATE_CMD_LINK_ADD - do */
static const struct nla_policy dm_replicate_link_add_nl_policy[DM_REPLICATE_A_LINK_PROGRESS_TIMEOUT_MS + 1] = {
	[DM_REPLICATE_A_LINK_GROUP] = { .type = NLA_NUL_STRING, .len = DM_REPLICATE_NAME_MAX, },
	[DM_REPLICATE_A_LINK_NAME] = { .type = NLA_NUL_STRING, .len = DM_REPLICATE_NAME_MAX, },
	[DM_REPLICATE_A_LINK_LOCAL] = { .type = NLA_NUL_STRING, .len = DM_REPLICATE_ADDR_MAX, },
	[DM_REPLICATE_A_LINK_PEER] = { .type = NLA_NUL_STRING, .len = DM_REPLICATE_ADDR_MAX, },
	[DM_REPLICATE_A_LINK_MODE] = NLA_POLICY_MAX(NLA_U32, 3),
	[DM_REPLICATE_A_LINK_ON_DISCONNECT] = NLA_POLICY_MAX(NLA_U32, 2),
	[DM_REPLICATE_A_LINK_ON_LOG_FULL] = NLA_POLICY_MAX(NLA_U32, 3),
	[DM_REPLICATE_A_LINK_HEARTBEAT_MS] = { .type = NLA_U32, },
	[DM_REPLICATE_A_LINK_PEER_TIMEOUT_MS] = { .type = NLA_U32, },
	[DM_REPLICATE_A_LINK_PROGRESS_TIMEOUT_MS] = { .type = NLA_U32, },
	[DM_REPLICATE_A_LINK_WINDOW_BYTES] = { .type = NLA_UINT, },
};

/* DM_REPLICATE_CMD_LINK_DEL - do */
static const struct nla_policy dm_replicate_link_del_nl_policy[DM_REPLICATE_A_LINK_NAME + 1] = {
	[DM_REPLICATE_A_LINK_GROUP] = { .type = NLA_NUL_STRING, .len = DM_REPLICATE_NAME_MAX, },
	[DM_REPLICATE_A_LINK_NAME] = { .type = NLA_NUL_STRING, .len = DM_REPLICATE_NAME_MAX, },
};

/* DM_REPLICATE_CMD_LINK_SET - do */
static const struct nla_policy dm_replicate_link_set_nl_policy[DM_REPLICATE_A_LINK_PROGRESS_TIMEOUT_MS + 1] = {
	[DM_REPLICATE_A_LINK_GROUP] = { .type = NLA_NUL_STRING, .len = DM_REPLICATE_NAME_MAX, },
	[DM_REPLICATE_A_LINK_NAME] = { .type = NLA_NUL_STRING, .len = DM_REPLICATE_NAME_MAX, },
	[DM_REPLICATE_A_LINK_MODE] = NLA_POLICY_MAX(NLA_U32, 3),
	[DM_REPLICATE_A_LINK_ON_DISCONNECT] = NLA_POLICY_MAX(NLA_U32, 2),
	[DM_REPLICATE_A_LINK_ON_LOG_FULL] = NLA_POLICY_MAX(NLA_U32, 3),
	[DM_REPLICATE_A_LINK_HEARTBEAT_MS] = { .type = NLA_U32, },
	[DM_REPLICATE_A_LINK_PEER_TIMEOUT_MS] = { .type = NLA_U32, },
	[DM_REPLICATE_A_LINK_PROGRESS_TIMEOUT_MS] = { .type = NLA_U32, },
	[DM_REPLICATE_A_LINK_WINDOW_BYTES] = { .type = NLA_UINT, },
};

/* DM_REPLICATE_CMD_LINK_CONNECT - do */
static const struct nla_policy dm_replicate_link_connect_nl_policy[DM_REPLICATE_A_LINK_NAME + 1] = {
	[DM_REPLICATE_A_LINK_GROUP] = { .type = NLA_NUL_STRING, .len = DM_REPLICATE_NAME_MAX, },
	[DM_REPLICATE_A_LINK_NAME] = { .type = NLA_NUL_STRING, .len = DM_REPLICATE_NAME_MAX, },
};

/* DM_REPLICATE_CMD_LINK_DISCONNECT - do */
static const struct nla_policy dm_replicate_link_disconnect_nl_policy[DM_REPLICATE_A_LINK_NAME + 1] = {
	[DM_REPLICATE_A_LINK_GROUP] = { .type = NLA_NUL_STRING, .len = DM_REPLICATE_NAME_MAX, },
	[DM_REPLICATE_A_LINK_NAME] = { .type = NLA_NUL_STRING, .len = DM_REPLICATE_NAME_MAX, },
};

/* DM_REPLICATE_CMD_SYNC - do */
static const struct nla_policy dm_replicate_sync_nl_policy[DM_REPLICATE_A_LINK_SYNC_KIND + 1] = {
	[DM_REPLICATE_A_LINK_GROUP] = { .type = NLA_NUL_STRING, .len = DM_REPLICATE_NAME_MAX, },
	[DM_REPLICATE_A_LINK_NAME] = { .type = NLA_NUL_STRING, .len = DM_REPLICATE_NAME_MAX, },
	[DM_REPLICATE_A_LINK_SYNC_KIND] = NLA_POLICY_MAX(NLA_U32, 4),
	[DM_REPLICATE_A_LINK_FORCE] = { .type = NLA_FLAG, },
};

/* DM_REPLICATE_CMD_TAKEOVER - do */
static const struct nla_policy dm_replicate_takeover_nl_policy[DM_REPLICATE_A_GROUP_FORCE + 1] = {
	[DM_REPLICATE_A_GROUP_NAME] = { .type = NLA_NUL_STRING, .len = DM_REPLICATE_NAME_MAX, },
	[DM_REPLICATE_A_GROUP_FORCE] = { .type = NLA_FLAG, },
};

/* Ops table for dm_replicate */
static const struct genl_split_ops dm_replicate_nl_ops[] = {
	{
		.cmd		= DM_REPLICATE_CMD_GROUP_ADD,
		.doit		= dm_replicate_nl_group_add_doit,
		.policy		= dm_replicate_group_add_nl_policy,
		.maxattr	= DM_REPLICATE_A_GROUP_WINDOW_BYTES,
		.flags		= GENL_CMD_CAP_DO,
	},
	{
		.cmd		= DM_REPLICATE_CMD_GROUP_DEL,
		.doit		= dm_replicate_nl_group_del_doit,
		.policy		= dm_replicate_group_del_nl_policy,
		.maxattr	= DM_REPLICATE_A_GROUP_NAME,
		.flags		= GENL_CMD_CAP_DO,
	},
	{
		.cmd		= DM_REPLICATE_CMD_GROUP_GET,
		.doit		= dm_replicate_nl_group_get_doit,
		.policy		= dm_replicate_group_get_nl_policy,
		.maxattr	= DM_REPLICATE_A_GROUP_NAME,
		.flags		= GENL_CMD_CAP_DO,
	},
	{
		.cmd	= DM_REPLICATE_CMD_GROUP_GET,
		.dumpit	= dm_replicate_nl_group_get_dumpit,
		.flags	= GENL_CMD_CAP_DUMP,
	},
	{
		.cmd		= DM_REPLICATE_CMD_GROUP_SET,
		.doit		= dm_replicate_nl_group_set_doit,
		.policy		= dm_replicate_group_set_nl_policy,
		.maxattr	= DM_REPLICATE_A_GROUP_WINDOW_BYTES,
		.flags		= GENL_CMD_CAP_DO,
	},
	{
		.cmd		= DM_REPLICATE_CMD_LINK_ADD,
		.doit		= dm_replicate_nl_link_add_doit,
		.policy		= dm_replicate_link_add_nl_policy,
		.maxattr	= DM_REPLICATE_A_LINK_PROGRESS_TIMEOUT_MS,
		.flags		= GENL_CMD_CAP_DO,
	},
	{
		.cmd		= DM_REPLICATE_CMD_LINK_DEL,
		.doit		= dm_replicate_nl_link_del_doit,
		.policy		= dm_replicate_link_del_nl_policy,
		.maxattr	= DM_REPLICATE_A_LINK_NAME,
		.flags		= GENL_CMD_CAP_DO,
	},
	{
		.cmd		= DM_REPLICATE_CMD_LINK_SET,
		.doit		= dm_replicate_nl_link_set_doit,
		.policy		= dm_replicate_link_set_nl_policy,
		.maxattr	= DM_REPLICATE_A_LINK_PROGRESS_TIMEOUT_MS,
		.flags		= GENL_CMD_CAP_DO,
	},
	{
		.cmd		= DM_REPLICATE_CMD_LINK_CONNECT,
		.doit		= dm_replicate_nl_link_connect_doit,
		.policy		= dm_replicate_link_connect_nl_policy,
		.maxattr	= DM_REPLICATE_A_LINK_NAME,
		.flags		= GENL_CMD_CAP_DO,
	},
	{
		.cmd		= DM_REPLICATE_CMD_LINK_DISCONNECT,
		.doit		= dm_replicate_nl_link_disconnect_doit,
		.policy		= dm_replicate_link_disconnect_nl_policy,
		.maxattr	= DM_REPLICATE_A_LINK_NAME,
		.flags		= GENL_CMD_CAP_DO,
	},
	{
		.cmd		= DM_REPLICATE_CMD_SYNC,
		.doit		= dm_replicate_nl_sync_doit,
		.policy		= dm_replicate_sync_nl_policy,
		.maxattr	= DM_REPLICATE_A_LINK_SYNC_KIND,
		.flags		= GENL_CMD_CAP_DO,
	},
	{
		.cmd		= DM_REPLICATE_CMD_TAKEOVER,
		.doit		= dm_replicate_nl_takeover_doit,
		.policy		= dm_replicate_takeover_nl_policy,
		.maxattr	= DM_REPLICATE_A_GROUP_FORCE,
		.flags		= GENL_CMD_CAP_DO,
	},
};

static const struct genl_multicast_group dm_replicate_nl_mcgrps[] = {
	[DM_REPLICATE_NLGRP_EVENTS] = { .name = "events", .flags = GENL_MCAST_CAP_SYS_ADMIN, },
};

struct genl_family dm_replicate_nl_family __ro_after_init = {
	.name		= DM_REPLICATE_FAMILY_NAME,
	.version	= DM_REPLICATE_FAMILY_VERSION,
	.parallel_ops	= true,
	.module		= THIS_MODULE,
	.split_ops	= dm_replicate_nl_ops,
	.n_split_ops	= ARRAY_SIZE(dm_replicate_nl_ops),
	.mcgrps		= dm_replicate_nl_mcgrps,
	.n_mcgrps	= ARRAY_SIZE(dm_replicate_nl_mcgrps),
};
