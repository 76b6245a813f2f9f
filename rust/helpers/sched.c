// SPDX-License-Identifier: GPL-2.0

#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/llist.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/timekeeping.h>
#include <linux/wait.h>

/* kthread_should_stop() may only be asked by a kthread. */
bool replicate_helper_should_stop(void)
{
	return (current->flags & PF_KTHREAD) && kthread_should_stop();
}

bool replicate_helper_is_kthread(void)
{
	return current->flags & PF_KTHREAD;
}

struct task_struct *replicate_helper_current(void)
{
	return current;
}

struct task_struct *replicate_helper_get_task(struct task_struct *task)
{
	return get_task_struct(task);
}

void replicate_helper_put_task(struct task_struct *task)
{
	put_task_struct(task);
}

bool replicate_helper_fatal_signal_pending(void)
{
	return fatal_signal_pending(current);
}

void replicate_helper_might_sleep(void)
{
	might_sleep();
}

u64 replicate_helper_ktime_get_ns(void)
{
	return ktime_get_ns();
}

u64 replicate_helper_ktime_get_real_ns(void)
{
	return ktime_get_real_ns();
}

unsigned long replicate_helper_msecs_to_jiffies(unsigned int ms)
{
	return msecs_to_jiffies(ms);
}

void replicate_helper_init_waitqueue_head(struct wait_queue_head *wq)
{
	init_waitqueue_head(wq);
}

bool replicate_helper_wq_has_sleeper(struct wait_queue_head *wq)
{
	return wq_has_sleeper(wq);
}

bool replicate_helper_llist_add(struct llist_node *node, struct llist_head *head)
{
	return llist_add(node, head);
}

struct llist_node *replicate_helper_llist_del_all(struct llist_head *head)
{
	return llist_del_all(head);
}
