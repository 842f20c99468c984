/* SPDX-License-Identifier: MIT
 *
 * ranges: which memory a ring or an arena gets, and how it is mapped here.
 */
#include <errno.h>
#include <stdlib.h>

#include "registry.h"

#define HUGE_ALIGN (UINT64_C(2) << 20)

/* ---- ranges ---------------------------------------------------------- */

static int comes_from_pool(unsigned page_shift, int node, uint64_t bytes)
{
	return page_shift == 12 && node == SHMQ_NODE_ANY && bytes <= REGISTRY_SMALL_BYTES;
}

int registry_take_range(struct registry *r, unsigned slab, int node, uint64_t bytes,
			struct registry_range *out, struct shmq__why *why)
{
	unsigned page_shift = r->slab[slab].page_shift;
	uint64_t off, align = UINT64_C(1) << page_shift;
	int error;

	out->bytes = bytes;
	out->node = SHMQ_NODE_ANY;
	out->is_warm = comes_from_pool(page_shift, node, bytes);
	if (out->is_warm) {
		error = pool_alloc(r->pool[slab], bytes, align, &off, why);
	} else {
		error = extent_alloc(r->big[slab], bytes, align < HUGE_ALIGN ? HUGE_ALIGN : align,
				     &off);
		if (error == -ENOSPC)
			error = shmq__fail(why, SHMQ_ELIMIT, "the slab of %llu KiB pages is full",
					   (unsigned long long)(align >> 10));
	}
	out->ref = LAY_REF(slab, off);
	return error;
}

/* Of a slab that is still to be made: its first chunks. */
static uint64_t growth_of(struct registry *r, uint32_t kind, uint64_t list, uint64_t bytes,
			  uint64_t align)
{
	int slab = registry_find_slab_of(r, kind, 12, list, r->uid);

	return slab < 0 ? bytes : pool_growth(r->pool[slab], bytes, align);
}

uint64_t registry_growth(struct registry *r, const struct lay_topic *shape, uint64_t list)
{
	uint64_t count = load_relaxed(&r->head->topic_count), n = shape->partitions, grows;

	grows = n * shape->ring_bytes;
	if (comes_from_pool(shape->page_shift, shape->node_asked, grows))
		grows = growth_of(r, LAY_SLAB_RING, list, grows, LAY_PAGE);
	if (!r->free_topic_count)
		grows += pool_growth(&r->topics, (count + 1) * sizeof(struct lay_topic), 0);
	return grows + pool_growth(&r->heap, n * sizeof(struct lay_partition), LAY_LINE) +
	       growth_of(r, LAY_SLAB_BELL, list, n * sizeof(struct lay_bells),
			 sizeof(struct lay_bells));
}

struct registry_range registry_range_at(const struct registry *r, lay_ref ref, uint64_t bytes)
{
	(void)r;
	return (struct registry_range){ .ref = ref,
					.bytes = bytes,
					.is_warm = LAY_REF_OFF(ref) < REGISTRY_BIG_BASE };
}

void registry_free_range(struct registry *r, const struct registry_range *range)
{
	unsigned slab = LAY_REF_SLAB(range->ref);

	if (range->is_warm)
		pool_free(r->pool[slab], LAY_REF_OFF(range->ref), range->bytes);
	else
		extent_free(r->big[slab], LAY_REF_OFF(range->ref), range->bytes);
}

/* ---- attaching ------------------------------------------------------- */

/* As shmq__topic_attach(), but all rings by one mapping, or by one that is
 * there already. */
enum check { CHECK_RINGS, TRUST_RINGS };
static int attach(struct registry *r, struct topic *t, enum check check)
{
	struct registry_range range = registry_rings_of(r, t->rec);
	struct shmq__topic *a = calloc(1, sizeof(*a) + t->rec->partitions * sizeof(a->ring[0]));
	struct lay_partition *part = shmq__slabs_at(r->slabs, t->rec->partition_array,
						    t->rec->partitions * sizeof(*part));
	uint32_t count = t->rec->partitions, p;
	void *mem;
	int error = a && part ? shmq__layout_geometry(t->rec, &a->geo) : -ENOMEM;

	if (!error)
		error = registry_map(r, &range, &mem);
	if (error) {
		free(a);
		return error;
	}
	a->slabs = r->slabs;
	a->rec = t->rec;
	a->index = t->index;
	a->id = t->rec->id;
	a->mode = SHMQ__SLAB_WRITE;
	for (p = 0; p < count; p++) {
		struct shmq__ring *ring = &a->ring[p];

		ring->geo = a->geo;
		ring->ref = part[p].ring;
		ring->part = &part[p];
		ring->mem = (void *)((char *)mem + (count - 1 - p) * a->geo.ring_bytes);
		ring->bells = shmq__slabs_at(r->slabs, part[p].bells, sizeof(*ring->bells));
		if (!error && !ring->bells)
			error = SHMQ_ECORRUPT;
		if (!error && check == CHECK_RINGS)
			error = shmq__layout_check_ring(ring->mem, &a->geo, a->id, p);
		/* A worker was killed before it had moved the topic: it stays.  One
		 * that ends says so in its record before it does in a ring. */
		if (!error && load_relaxed(&t->rec->state) == LAY_TOPIC_LIVE &&
		    load_relaxed(&ring->mem->state) != LAY_RING_LIVE)
			store_release(&ring->mem->state, LAY_RING_LIVE);
	}
	if (!error) {
		t->attached = a;
		return 0;
	}
	registry_unmap(r, &range, mem);
	free(a);
	return error;
}

static int attach_in_turn(struct registry *r, struct topic *t, enum check check,
			  struct shmq__why *why)
{
	int error;

	if (t->attached) {
		TAILQ_REMOVE(&r->attached, t, recent);
		TAILQ_INSERT_TAIL(&r->attached, t, recent);
		return 0;
	}
	error = attach(r, t, check);
	if (error == SHMQ_ELIMIT && r->attached_count) { /* another's map may be spared */
		registry_detach(r, TAILQ_FIRST(&r->attached));
		error = attach(r, t, check);
	}
	if (error == SHMQ_ELIMIT)
		return shmq__fail(
			why, error, "the supervisor cannot map \"%s\": %s", t->rec->name,
			t->rec->page_shift > 12 ?
				"too many maps (sysctl vm.max_map_count raises the limit), or no "
				"hugepage is left for a hole in it (sysctl vm.nr_hugepages)" :
				"too many maps (sysctl vm.max_map_count raises the limit)");
	if (error)
		return shmq__fail(why, error, "the supervisor cannot map \"%s\": %s", t->rec->name,
				  shmq_strerror(error));
	TAILQ_INSERT_TAIL(&r->attached, t, recent);
	if (++r->attached_count > REGISTRY_ATTACHED)
		registry_detach(r, TAILQ_FIRST(&r->attached));
	return 0;
}

int registry_attach(struct registry *r, struct topic *t, struct shmq__why *why)
{
	return attach_in_turn(r, t, CHECK_RINGS, why);
}

int registry_attach_to_end(struct registry *r, struct topic *t, struct shmq__why *why)
{
	return attach_in_turn(r, t, TRUST_RINGS, why);
}

void registry_detach(struct registry *r, struct topic *t)
{
	struct registry_range range;

	if (!t->attached)
		return;
	range = registry_rings_of(r, t->rec);
	registry_unmap(r, &range, t->attached->ring[t->attached->geo.partitions - 1].mem);
	free(t->attached);
	t->attached = NULL;
	TAILQ_REMOVE(&r->attached, t, recent);
	r->attached_count--;
}

int registry_is_shared_map(const struct registry *r, const void *mem)
{
	return r->warm && (const char *)mem >= r->warm &&
	       (const char *)mem < r->warm + REGISTRY_WARM_MAP;
}

static int is_in_warm_map(const struct registry *r, const struct registry_range *range)
{
	return r->warm && range->is_warm && LAY_REF_SLAB(range->ref) == r->warm_slab &&
	       LAY_REF_OFF(range->ref) + range->bytes <= REGISTRY_WARM_MAP;
}

int registry_is_mapped(const struct registry *r, const struct topic *t)
{
	struct registry_range range = registry_rings_of(r, t->rec);

	return t->attached || is_in_warm_map(r, &range);
}

int registry_map(struct registry *r, const struct registry_range *range, void **out)
{
	if (is_in_warm_map(r, range)) {
		*out = r->warm + LAY_REF_OFF(range->ref);
		return 0;
	}
	return shmq__slabs_map(r->slabs, range->ref, range->bytes, SHMQ__SLAB_WRITE, out);
}

void registry_unmap(struct registry *r, const struct registry_range *range, void *mem)
{
	if (!registry_is_shared_map(r, mem))
		shmq__slabs_unmap(r->slabs, range->ref, range->bytes, mem);
}
