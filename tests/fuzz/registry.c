/* SPDX-License-Identifier: MIT
 *
 * A client whose supervisor has gone mad: header, tables, partitions and
 * roster of the registry say anything.
 */
#include "scene.h"

#include <unistd.h>

const unsigned fuzz_runs = 3000;

enum { OPS_MAX = 32 };

static struct scene *c;

static int see_topic(void *arg, const struct shmq_topic_info *info)
{
	CHECK(memchr(info->name, 0, sizeof(info->name)) != NULL);
	CHECK(memchr(info->note, 0, sizeof(info->note)) != NULL);
	return 0;
}

static int see_partition(void *arg, const struct shmq_partition_info *info)
{
	return 0;
}

static int see_peer(void *arg, const struct shmq_peer_info *info)
{
	CHECK(memchr(info->client_name, 0, sizeof(info->client_name)) != NULL);
	return 0;
}

static void look(void)
{
	struct shmq_bus_info info;

	CHECK_OK(WITHIN(SCENE_STEPS, shmq_bus_get_info(&c->bus, &info)));
	CHECK(memchr(info.name, 0, sizeof(info.name)) != NULL);
	WITHIN(SCENE_STEPS, shmq_topic_each(&c->bus, see_topic, NULL));
	WITHIN(SCENE_STEPS, shmq_partition_each(&c->bus, "fake", see_partition, NULL));
	WITHIN(SCENE_STEPS, shmq_peer_each(&c->bus, "fake", see_peer, NULL));
}

static void subscribe(void)
{
	struct shmq_sub_options o = { .size = sizeof(o) };
	struct shmq_msg m = { 0 };
	shmq_sub *sub = NULL;
	unsigned n = 10;

	if (WITHIN(SCENE_STEPS, shmq_sub_open(&c->bus, "fake", &o, &sub)))
		return;
	while (n--)
		if (!WITHIN(SCENE_STEPS, shmq_receive(sub, &m, SHMQ_NOWAIT)))
			fuzz_touch(m.data, m.len);
	WITHIN(SCENE_STEPS, shmq_receive(sub, &m, 1000000));
	shmq_sub_close(sub);
}

static void publish(void)
{
	struct shmq_pub_options o = { .size = sizeof(o), .block_timeout_ns = 1000000 };
	struct shmq_pub_stats stats;
	static const char bytes[3000];
	shmq_pub *pub = NULL;
	unsigned n = 10;

	if (WITHIN(SCENE_STEPS, shmq_pub_open(&c->bus, "fake", &o, &pub)))
		return;
	while (n--)
		WITHIN(SCENE_STEPS, shmq_publish(pub, bytes, n % 2 ? 8 : sizeof(bytes)));
	WITHIN(SCENE_STEPS, shmq_flush(pub, 1000000));
	WITHIN(SCENE_STEPS, shmq_pub_wait_subscribers(pub, 5, 1000000));
	shmq_pub_get_stats(pub, &stats);
	shmq_pub_close(pub);
}

/* What is checked when its descriptor comes. */
static void take_over(struct bites *in)
{
	unsigned id = (unsigned)bite_below(in, FAKE_SLABS + 1);
	struct shmq__slabs *slabs;
	int fd;

	CHECK_OK(shmq__slabs_create(&slabs));
	fd = dup(shmq__slabs_fd(c->f->slabs, FAKE_REGISTRY, SHMQ__SLAB_WRITE));
	if (!shmq__slabs_add(slabs, FAKE_REGISTRY, fd, SHMQ__SLAB_READ)) {
		fd = dup(shmq__slabs_fd(c->f->slabs, id % FAKE_SLABS, SHMQ__SLAB_WRITE));
		shmq__slabs_add(slabs, id, fd, SHMQ__SLAB_READ);
	}
	shmq__slabs_destroy(slabs);
}

/* A table of millions would be read, record by record, and what is to be waited
 * for days would be. */
static void make_noise(struct bites *in)
{
	struct noise noise = bite_noise(in, c->records, c->records_count);
	shmq_au32 *topics = &c->f->registry->topic_count;

	noise_make(&noise);
	store_relaxed(topics, load_relaxed(topics) % 64);
	c->f->rec->evict_ns = 1000000;
}

static void play(struct bites *in)
{
	switch (bite_below(in, 8)) {
	case 0:
	case 1:
	case 2:
		make_noise(in);
		break;
	case 3:
		scene_craft_slot(c, in);
		break;
	case 4:
		look();
		break;
	case 5:
		subscribe();
		break;
	case 6:
		publish();
		break;
	default:
		take_over(in);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bites in = { data, size };
	unsigned ops = 0;

	c = scene_begin(&in);
	while (in.left && ops++ < OPS_MAX)
		play(&in);
	look();
	subscribe();
	publish();
	scene_end(c);
	return 0;
}

void fuzz_leave(void)
{
	scene_leave();
}
