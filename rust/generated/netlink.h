/* SPDX-License-Identifier: ((GPL-2.0 WITH Linux-syscall-note) OR BSD-3-Clause) */
/* Do not edit directly, auto-generated from: */
/*	Documentation/netlink/specs/dm-replicate.yaml */
/* YNL-GEN kernel header */
/* To regenerate run: scripts/ynl-regen */

#ifndef _LINUX_DM_REPLICATE_GEN_H
#define _LINUX_DM_REPLICATE_GEN_H

#include <net/netlink.h>
#include <net/genetlink.h>

#include <uapi/linux/dm_replicate.h>

int dm_replicate_nl_group_add_doit(struct sk_buff *skb, struct genl_info *info);
int dm_replicate_nl_group_del_doit(struct sk_buff *skb, struct genl_info *info);
int dm_replicate_nl_group_get_doit(struct sk_buff *skb, struct genl_info *info);
int dm_replicate_nl_group_get_dumpit(struct sk_buff *skb,
				     struct netlink_callback *cb);
int dm_replicate_nl_group_set_doit(struct sk_buff *skb, struct genl_info *info);
int dm_replicate_nl_link_add_doit(struct sk_buff *skb, struct genl_info *info);
int dm_replicate_nl_link_del_doit(struct sk_buff *skb, struct genl_info *info);
int dm_replicate_nl_link_set_doit(struct sk_buff *skb, struct genl_info *info);
int dm_replicate_nl_link_connect_doit(struct sk_buff *skb,
				      struct genl_info *info);
int dm_replicate_nl_link_disconnect_doit(struct sk_buff *skb,
					 struct genl_info *info);
int dm_replicate_nl_sync_doit(struct sk_buff *skb, struct genl_info *info);
int dm_replicate_nl_takeover_doit(struct sk_buff *skb, struct genl_info *info);

enum {
	DM_REPLICATE_NLGRP_EVENTS,
};

extern struct genl_family dm_replicate_nl_family;

#endif /* _LINUX_DM_REPLICATE_GEN_H */
