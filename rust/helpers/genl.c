// SPDX-License-Identifier: GPL-2.0

#include <linux/capability.h>
#include <net/genetlink.h>
#include <net/netlink.h>
#include <net/sock.h>

/*
 * Whether the sender of a request, and whoever opened its socket, is privileged in the initial user
 * namespace, and the socket is of the initial network namespace.
 */
bool replicate_helper_netlink_is_privileged(struct sk_buff *skb)
{
	struct sock *sk = NETLINK_CB(skb).sk;

	if (!net_eq(sock_net(sk), &init_net))
		return false;
	/* A socket of the kernel's own has no file, and so no opener. */
	if (!sk->sk_socket || !sk->sk_socket->file)
		return capable(CAP_SYS_ADMIN);
	return netlink_capable(skb, CAP_SYS_ADMIN);
}

struct sk_buff *replicate_helper_genlmsg_new(size_t payload, gfp_t flags)
{
	return genlmsg_new(payload, flags);
}

void replicate_helper_genlmsg_end(struct sk_buff *skb, void *hdr)
{
	genlmsg_end(skb, hdr);
}

void replicate_helper_genlmsg_cancel(struct sk_buff *skb, void *hdr)
{
	genlmsg_cancel(skb, hdr);
}

int replicate_helper_genlmsg_reply(struct sk_buff *skb, struct genl_info *info)
{
	return genlmsg_reply(skb, info);
}

/*
 * A group can be joined by its number before the family that asks for a privilege has it: whoever opened the socket
 * must have it when a message is sent, too. Netlink keeps the socket, and its file, for that long.
 */
static int is_unprivileged(struct sock *sk, struct sk_buff *skb, void *data)
{
	if (!sk->sk_socket || !sk->sk_socket->file)
		return !sk->sk_kern_sock;
	return !file_ns_capable(sk->sk_socket->file, &init_user_ns, CAP_SYS_ADMIN);
}

/* Takes the buffer, also when it fails. */
int replicate_helper_genlmsg_multicast(struct genl_family *family, struct sk_buff *skb,
				       unsigned int group, gfp_t flags)
{
	return genlmsg_multicast_netns_filtered(family, &init_net, skb, 0, group, flags,
						is_unprivileged, NULL);
}

void replicate_helper_nlmsg_free(struct sk_buff *skb)
{
	nlmsg_free(skb);
}

struct nlattr *replicate_helper_nla_nest_start(struct sk_buff *skb, int type)
{
	return nla_nest_start(skb, type);
}

void replicate_helper_nla_nest_end(struct sk_buff *skb, struct nlattr *start)
{
	nla_nest_end(skb, start);
}

void replicate_helper_nla_nest_cancel(struct sk_buff *skb, struct nlattr *start)
{
	nla_nest_cancel(skb, start);
}

int replicate_helper_nla_put_uint(struct sk_buff *skb, int type, u64 value)
{
	return nla_put_uint(skb, type, value);
}

const struct genl_info *replicate_helper_genl_info_dump(struct netlink_callback *cb)
{
	return genl_info_dump(cb);
}

void replicate_helper_genl_dump_check_consistent(struct netlink_callback *cb, void *hdr)
{
	genl_dump_check_consistent(cb, hdr);
}
