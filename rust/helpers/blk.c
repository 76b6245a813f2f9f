// SPDX-License-Identifier: GPL-2.0

#include <linux/bio.h>
#include <linux/blk-cgroup.h>
#include <linux/blkdev.h>

/* Without a css this is the queue's root group: our own I/O is never charged to whoever runs. */
void replicate_helper_bio_associate_root(struct bio *bio)
{
	bio_associate_blkg_from_css(bio, NULL);
}

void replicate_helper_bio_set_dev(struct bio *bio, struct block_device *bdev)
{
	bio_set_dev(bio, bdev);
}

unsigned int replicate_helper_bdev_discard_granularity(struct block_device *bdev)
{
	return bdev_discard_granularity(bdev);
}

bool replicate_helper_bdev_fua(struct block_device *bdev)
{
	return bdev_fua(bdev);
}

bool replicate_helper_bdev_is_zoned(struct block_device *bdev)
{
	return bdev_is_zoned(bdev);
}

unsigned int replicate_helper_bdev_logical_block_size(struct block_device *bdev)
{
	return bdev_logical_block_size(bdev);
}

unsigned int replicate_helper_bdev_max_discard_sectors(struct block_device *bdev)
{
	return bdev_max_discard_sectors(bdev);
}

sector_t replicate_helper_bdev_nr_sectors(struct block_device *bdev)
{
	return bdev_nr_sectors(bdev);
}

bool replicate_helper_bdev_same_disk(struct block_device *a, struct block_device *b)
{
	return a->bd_disk == b->bd_disk;
}

unsigned int replicate_helper_bdev_openers(struct block_device *bdev)
{
	return atomic_read(&bdev->bd_openers);
}

unsigned int replicate_helper_bdev_physical_block_size(struct block_device *bdev)
{
	return bdev_physical_block_size(bdev);
}

bool replicate_helper_bdev_read_only(struct block_device *bdev)
{
	return bdev_read_only(bdev);
}

bool replicate_helper_bdev_write_cache(struct block_device *bdev)
{
	return bdev_write_cache(bdev);
}

unsigned int replicate_helper_bdev_write_zeroes_sectors(struct block_device *bdev)
{
	return bdev_write_zeroes_sectors(bdev);
}

unsigned int replicate_helper_bdev_major(struct block_device *bdev)
{
	return MAJOR(bdev->bd_dev);
}

unsigned int replicate_helper_bdev_minor(struct block_device *bdev)
{
	return MINOR(bdev->bd_dev);
}

/* The kernel's own spelling of a block device ("vdb", "nvme0n1p1"). */
int replicate_helper_bdev_name(struct block_device *bdev, char *buf, size_t len)
{
	return scnprintf(buf, len, "%pg", bdev);
}

unsigned int replicate_helper_bdev_max_segments(struct block_device *bdev)
{
	return queue_max_segments(bdev_get_queue(bdev));
}
