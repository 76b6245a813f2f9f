// SPDX-License-Identifier: GPL-2.0

#include <linux/file.h>
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/string.h>

void replicate_helper_memzero_explicit(void *p, size_t bytes)
{
	memzero_explicit(p, bytes);
}

struct page *replicate_helper_alloc_page(gfp_t flags)
{
	return alloc_page(flags);
}

void replicate_helper_get_page(struct page *page)
{
	get_page(page);
}

void replicate_helper_put_page(struct page *page)
{
	put_page(page);
}

int replicate_helper_page_count(struct page *page)
{
	return page_count(page);
}

void *replicate_helper_page_address(struct page *page)
{
	return page_address(page);
}

struct page *replicate_helper_zero_page(void)
{
	return ZERO_PAGE(0);
}

struct file *replicate_helper_get_file(struct file *file)
{
	return get_file(file);
}

unsigned int replicate_helper_memalloc_noio_save(void)
{
	return memalloc_noio_save();
}

void replicate_helper_memalloc_noio_restore(unsigned int flags)
{
	memalloc_noio_restore(flags);
}

unsigned int replicate_helper_memalloc_noreclaim_save(void)
{
	return memalloc_noreclaim_save();
}

void replicate_helper_memalloc_noreclaim_restore(unsigned int flags)
{
	memalloc_noreclaim_restore(flags);
}

/*
 * For lockdep, a task between these two is in memory reclaim: reclaim waits for what it does. The flags that make
 * allocations leave I/O alone would hide that.
 */
void replicate_helper_reclaim_waits_begin(void)
{
#ifdef CONFIG_LOCKDEP
	unsigned int hidden = current->flags & (PF_MEMALLOC | PF_MEMALLOC_NOIO | PF_MEMALLOC_NOFS);

	current->flags &= ~hidden;
	fs_reclaim_acquire(GFP_KERNEL);
	current->flags |= hidden;
#endif
}

void replicate_helper_reclaim_waits_end(void)
{
#ifdef CONFIG_LOCKDEP
	unsigned int hidden = current->flags & (PF_MEMALLOC | PF_MEMALLOC_NOIO | PF_MEMALLOC_NOFS);

	current->flags &= ~hidden;
	fs_reclaim_release(GFP_KERNEL);
	current->flags |= hidden;
#endif
}

/* Memory that others may write to or read at the same time: see PageBuf::copy_from_raw(). */
void replicate_helper_copy_shared(void *to, const void *from, size_t n)
{
	memcpy(to, from, n);
}

void replicate_helper_zero_shared(void *to, size_t n)
{
	memset(to, 0, n);
}
