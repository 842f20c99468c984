/* SPDX-License-Identifier: MIT
 *
 * What a publisher left that wrote what it liked until it died: recovery, the
 * successor that takes its ring and arena over, and whoever looks at it all.
 */
#include "scene.h"

#include "recover.h"

const unsigned fuzz_runs = 2000;

enum { OPS_MAX = 48 };

static struct scene *c;

static int see_partition(void *arg, const struct shmq_partition_info *info)
{
	CHECK_LT(info->partition, c->f->geo.partitions);
	return 0;
}

static int see_peer(void *arg, const struct shmq_peer_info *info)
{
	CHECK(memchr(info->client_name, 0, sizeof(info->client_name)) != NULL);
	return 0;
}

/* Or a ring says of itself what it can't be. */
static void check_seen(int rc)
{
	CHECK(rc == 0 || rc == SHMQ_ECORRUPT || rc == SHMQ_EVERSION);
}

static void look(void)
{
	struct shmq_topic_info info;

	check_seen(WITHIN(SCENE_STEPS, shmq_topic_get_info(&c->bus, "fake", &info)));
	check_seen(WITHIN(SCENE_STEPS, shmq_partition_each(&c->bus, "fake", see_partition, NULL)));
	check_seen(WITHIN(SCENE_STEPS, shmq_peer_each(&c->bus, "fake", see_peer, NULL)));
}

static void recover_slot(struct bites *in)
{
	uint32_t p = (uint32_t)bite_below(in, c->f->geo.partitions);
	uint64_t seq = c->base + bite_below(in, 40);
	uint64_t word = load_relaxed(fake_ctrl(c->f->topic->ring[p].mem, &c->f->geo, seq));

	WITHIN(SCENE_STEPS, shmq__recover_slot(c->f->topic, p, seq, word, c->peer_pub->client_gen));
}

/* Nobody stands before a claim of the dead. */
static void check_voided(uint32_t p)
{
	struct shmq__ring *ring = &c->f->topic->ring[p];
	uint64_t head = shmq__topic_head(ring), n;

	for (n = head - c->f->geo.depth; n != head; n++)
		CHECK(load_relaxed(fake_ctrl(ring->mem, &c->f->geo, n)) !=
		      LAY_CTRL(lay_lap(&c->f->geo, n), 2, LAY_CLAIMED));
}

static void recover(struct bites *in)
{
	uint32_t p;

	if (bite(in, 1) % 2)
		WITHIN(SCENE_STEPS, shmq__recover_publisher(c->f->topic, c->peer_pub));
	noise_between_steps(NULL, 0, 0);
	for (p = 0; p < c->f->geo.partitions && c->f->geo.mode == SHMQ_SHARED; p++) {
		WITHIN(SCENE_STEPS,
		       shmq__recover_claims(c->f->topic, p, 2, c->peer_pub->client_gen));
		check_voided(p);
	}
}

/* It says that it can't go on, or goes on. */
static void succeed(void)
{
	struct shmq_pub_options o = { .size = sizeof(o), .flags = SHMQ_DONTWAIT };
	static const char bytes[4000];
	size_t len = c->f->geo.max_bytes < sizeof(bytes) ? c->f->geo.max_bytes : sizeof(bytes);
	shmq_pub *pub = NULL;
	unsigned n = 40;

	if (WITHIN(SCENE_STEPS, shmq_pub_open(&c->bus, "fake", &o, &pub)))
		return;
	while (n--)
		WITHIN(SCENE_STEPS, shmq_publish(pub, bytes, len));
	shmq_pub_close(pub);
}

static void play(struct bites *in)
{
	struct noise noise;

	switch (bite_below(in, 10)) {
	case 0:
	case 1:
		noise = bite_noise(in, c->published, c->published_count);
		noise_make(&noise);
		break;
	case 2:
		noise = bite_noise(in, c->shared, c->shared_count);
		noise_make(&noise);
		break;
	case 3:
	case 4:
		scene_craft_slot(c, in);
		break;
	case 5:
		scene_disturb(in, c->published, c->published_count);
		break;
	case 6:
		look();
		break;
	case 7:
		recover_slot(in);
		break;
	case 8:
		recover(in);
		break;
	default:
		succeed();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bites in = { data, size };
	unsigned ops = 0;

	c = scene_begin(&in);
	while (in.left && ops++ < OPS_MAX)
		play(&in);
	recover(&in);
	look();
	succeed();
	scene_end(c);
	return 0;
}

void fuzz_leave(void)
{
	scene_leave();
}
