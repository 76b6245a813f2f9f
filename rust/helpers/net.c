// SPDX-License-Identifier: GPL-2.0

#include <linux/net.h>
#include <linux/tcp.h>
#include <net/sock.h>
#include <net/tcp.h>

void replicate_helper_read_lock_callbacks(struct sock *sk)
{
	read_lock_bh(&sk->sk_callback_lock);
}

void replicate_helper_read_unlock_callbacks(struct sock *sk)
{
	read_unlock_bh(&sk->sk_callback_lock);
}

void replicate_helper_write_lock_callbacks(struct sock *sk)
{
	write_lock_bh(&sk->sk_callback_lock);
}

void replicate_helper_write_unlock_callbacks(struct sock *sk)
{
	write_unlock_bh(&sk->sk_callback_lock);
}

/* A child that a listener clones must not inherit the listener's pointer. */
void replicate_helper_sk_set_user_data(struct sock *sk, void *data)
{
	__rcu_assign_sk_user_data_with_flags(sk, data, SK_USER_DATA_NOCOPY);
}

void *replicate_helper_sk_user_data(struct sock *sk)
{
	return __locked_read_sk_user_data_with_flags(sk, SK_USER_DATA_NOCOPY);
}

/* Callbacks as plain pointers; each returns the one before. The callback lock is held. */
void *replicate_helper_sk_swap_data_ready(struct sock *sk, void *callback)
{
	void *old = sk->sk_data_ready;

	WRITE_ONCE(sk->sk_data_ready, callback);
	return old;
}

void *replicate_helper_sk_swap_state_change(struct sock *sk, void *callback)
{
	void *old = sk->sk_state_change;

	WRITE_ONCE(sk->sk_state_change, callback);
	return old;
}

void *replicate_helper_sk_swap_write_space(struct sock *sk, void *callback)
{
	void *old = sk->sk_write_space;

	WRITE_ONCE(sk->sk_write_space, callback);
	return old;
}

bool replicate_helper_sk_is_established(struct sock *sk)
{
	return READ_ONCE(sk->sk_state) == TCP_ESTABLISHED;
}

bool replicate_helper_sk_is_connecting(struct sock *sk)
{
	return (1 << READ_ONCE(sk->sk_state)) & (TCPF_SYN_SENT | TCPF_SYN_RECV);
}

int replicate_helper_sk_take_error(struct sock *sk)
{
	return sock_error(sk);
}

/* Memory for a socket that block I/O waits for. */
void replicate_helper_sk_set_io_path(struct sock *sk)
{
	sk->sk_allocation = GFP_NOIO;
	sk->sk_use_task_frag = false;
}

void replicate_helper_sk_set_memalloc(struct sock *sk)
{
	sk_set_memalloc(sk);
}

/* What the socket has taken from the reserves is settled with its lock held. */
void replicate_helper_sk_clear_memalloc(struct sock *sk)
{
	lock_sock(sk);
	sk_clear_memalloc(sk);
	release_sock(sk);
}

/* True once there is room again; re-arms the report. */
bool replicate_helper_sk_take_write_space(struct sock *sk)
{
	if (!sk_stream_is_writeable(sk))
		return false;
	clear_bit(SOCK_NOSPACE, &sk->sk_socket->flags);
	return true;
}

/* Bytes that the peer's TCP has not acknowledged: their pages may still be read. */
u32 replicate_helper_tcp_unacked(struct sock *sk)
{
	return READ_ONCE(tcp_sk(sk)->write_seq) - READ_ONCE(tcp_sk(sk)->snd_una);
}

/* As nvme-tcp does: our use of sockets must not be mixed up with other users' by lockdep. */
void replicate_helper_sk_reclassify(struct sock *sk)
{
#ifdef CONFIG_DEBUG_LOCK_ALLOC
	static struct lock_class_key key[2], slock_key[2];

	if (!sock_allow_reclassification(sk))
		return;

	if (sk->sk_family == AF_INET6)
		sock_lock_init_class_and_name(sk, "slock-AF_INET6-REPLICATE", &slock_key[1],
					      "sk_lock-AF_INET6-REPLICATE", &key[1]);
	else
		sock_lock_init_class_and_name(sk, "slock-AF_INET-REPLICATE", &slock_key[0],
					      "sk_lock-AF_INET-REPLICATE", &key[0]);
#endif
}

struct net *replicate_helper_init_net(void)
{
	return &init_net;
}
