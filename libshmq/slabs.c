/* SPDX-License-Identifier: MIT
 *
 * Edges: the table pointer is stored with release and loaded with acquire
 * inside RCU read-side sections (liburcu's own macros order by fences, which
 * ThreadSanitizer does not see); whole maps and descriptors live until
 * destroy, so what a reader took from the table stays good after it left
 * the section.
 */
#include "slabs.h"
#include "shmem.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <urcu/urcu-bp.h>

struct held {
	int fd[2];  /* by enum shmq__slabs_mode, -1 none */
	char *base; /* whole map or NULL */
	int base_prot;
	uint64_t bytes;
	uint32_t kind, page_shift;
};

struct table {
	struct table *next; /* of those that were replaced */
	unsigned count;
	struct held slab[];
};

/* A grace period is waited for when so many tables were replaced, and so not
 * while a process attaches. */
#define REPLACED_MAX 32u

struct shmq__slabs {
	struct table *_Atomic table; /* RCU */
	struct table *replaced;      /* somebody may still read them */
	unsigned replaced_count;
	struct lay_registry *registry;
	pthread_mutex_t lock; /* of who adds */
};

/* A child has only the thread that forked: the readers of the others must
 * not be waited for there. */
static void watch_forks(void)
{
	pthread_atfork(urcu_bp_before_fork, urcu_bp_after_fork_parent, urcu_bp_after_fork_child);
}

int shmq__slabs_create(struct shmq__slabs **out)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct shmq__slabs *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	pthread_once(&once, watch_forks);
	pthread_mutex_init(&s->lock, NULL);
	s->table = calloc(1, sizeof(*s->table));
	if (!s->table) {
		free(s);
		return -ENOMEM;
	}
	*out = s;
	return 0;
}

static void free_replaced(struct shmq__slabs *s)
{
	struct table *t;

	while ((t = s->replaced)) {
		s->replaced = t->next;
		free(t);
	}
	s->replaced_count = 0;
}

void shmq__slabs_destroy(struct shmq__slabs *s)
{
	struct held *h;

	if (!s)
		return;
	for (h = s->table->slab; h < s->table->slab + s->table->count; h++)
		shmq__shmem_unmap(h->base, h->bytes);
	shmq__slabs_abandon(s);
}

void shmq__slabs_abandon(struct shmq__slabs *s)
{
	struct held *h;

	if (!s)
		return;
	for (h = s->table->slab; h < s->table->slab + s->table->count; h++) {
		if (h->fd[SHMQ__SLAB_READ] >= 0)
			close(h->fd[SHMQ__SLAB_READ]);
		if (h->fd[SHMQ__SLAB_WRITE] >= 0)
			close(h->fd[SHMQ__SLAB_WRITE]);
	}
	free_replaced(s);
	free(s->table);
	free(s);
}

/* The slab's line of the table, copied; kind 0 if unknown. */
static struct held find(const struct shmq__slabs *s, unsigned id)
{
	struct held h = { .fd = { -1, -1 } };
	struct table *t;

	urcu_bp_read_lock();
	t = load_acquire(&((struct shmq__slabs *)(uintptr_t)s)->table);
	if (id < t->count)
		h = t->slab[id];
	rcu_section_ends((void *)(uintptr_t)&s->registry);
	urcu_bp_read_unlock();
	return h;
}

static int put(struct shmq__slabs *s, unsigned id, const struct held *h)
{
	struct table *old = s->table, *fresh;
	unsigned count = id >= old->count ? id + 1 : old->count, i;

	fresh = malloc(sizeof(*fresh) + count * sizeof(fresh->slab[0]));
	if (!fresh)
		return -ENOMEM;
	fresh->count = count;
	memcpy(fresh->slab, old->slab, old->count * sizeof(fresh->slab[0]));
	for (i = old->count; i < count; i++)
		fresh->slab[i] = (struct held){ .fd = { -1, -1 } };
	fresh->slab[id] = *h;
	store_release(&s->table, fresh);
	old->next = s->replaced;
	s->replaced = old;
	if (++s->replaced_count == REPLACED_MAX) {
		urcu_bp_synchronize_rcu();
		rcu_grace_ended(&s->registry);
		free_replaced(s);
	}
	return 0;
}

/* What the registry says the slab is; the registry itself is known. */
static int describe(const struct shmq__slabs *s, unsigned id, struct held *h)
{
	struct lay_slab *rec;

	if (id == 0) {
		h->kind = LAY_SLAB_REGISTRY;
		h->page_shift = 12;
		h->bytes = LAY_REGISTRY_BYTES;
		return 0;
	}
	rec = shmq__slabs_slab(s, id);
	if (!rec)
		return SHMQ_ECORRUPT;
	h->kind = rec->kind;
	h->page_shift = rec->page_shift;
	h->bytes = rec->bytes;
	if (h->kind < LAY_SLAB_BELL || h->kind > LAY_SLAB_ARENA || h->page_shift < 12 ||
	    h->page_shift > 30 || h->bytes > LAY_BULK_SLAB_BYTES)
		return SHMQ_ECORRUPT;
	return 0;
}

static int is_whole(uint32_t kind)
{
	return kind == LAY_SLAB_REGISTRY || kind == LAY_SLAB_BELL || kind == LAY_SLAB_ENTRY;
}

static int add(struct shmq__slabs *s, unsigned id, int fd, enum shmq__slabs_mode mode)
{
	struct held h = find(s, id);
	int error, mapped = 0;

	if (h.fd[mode] >= 0) {
		close(fd);
		return 0;
	}
	if (!h.kind) {
		error = describe(s, id, &h);
		if (error)
			goto out;
	}
	error = SHMQ_ECORRUPT;
	if (!shmq__shmem_is_sealed(fd, h.bytes))
		goto out;
	if (is_whole(h.kind) && !h.base) {
		int prot = mode == SHMQ__SLAB_WRITE ? PROT_READ | PROT_WRITE : PROT_READ;
		void *base;

		error = shmq__shmem_map(fd, 0, h.bytes, prot, &base);
		if (error)
			goto out;
		h.base = base;
		h.base_prot = prot;
		mapped = 1;
	}
	if (id == 0 && mapped) {
		error = shmq__layout_check_registry((struct lay_registry *)(void *)h.base);
		if (error)
			goto out;
	}
	h.fd[mode] = fd;
	error = put(s, id, &h);
	if (!error && id == 0)
		s->registry = (struct lay_registry *)(void *)h.base;
out:
	if (!error)
		return 0;
	if (mapped)
		shmq__shmem_unmap(h.base, h.bytes);
	close(fd);
	return error;
}

int shmq__slabs_add(struct shmq__slabs *s, unsigned id, int fd, enum shmq__slabs_mode mode)
{
	int error;

	pthread_mutex_lock(&s->lock);
	error = add(s, id, fd, mode);
	pthread_mutex_unlock(&s->lock);
	return error;
}

int shmq__slabs_has(const struct shmq__slabs *s, unsigned id)
{
	return find(s, id).kind != 0;
}

struct lay_registry *shmq__slabs_registry(const struct shmq__slabs *s)
{
	return s->registry;
}

static int in_bounds(const struct held *h, uint64_t off, uint64_t bytes)
{
	return h->kind && off < h->bytes && bytes <= h->bytes - off && !(off & 7);
}

void *shmq__slabs_at(const struct shmq__slabs *s, lay_ref ref, uint64_t bytes)
{
	struct held h = find(s, LAY_REF_SLAB(ref));

	if (!ref || !h.base || !in_bounds(&h, LAY_REF_OFF(ref), bytes))
		return NULL;
	return h.base + LAY_REF_OFF(ref);
}

void *shmq__slabs_at_writable(const struct shmq__slabs *s, lay_ref ref, uint64_t bytes)
{
	return find(s, LAY_REF_SLAB(ref)).base_prot & PROT_WRITE ? shmq__slabs_at(s, ref, bytes) :
								   NULL;
}

/* The whole pages around a range. */
static void pages_around(const struct held *h, lay_ref ref, uint64_t bytes, uint64_t *off,
			 uint64_t *span)
{
	uint64_t page = UINT64_C(1) << h->page_shift, end = LAY_REF_OFF(ref) + bytes;

	*off = LAY_REF_OFF(ref) & ~(page - 1);
	*span = ((end + page - 1) & ~(page - 1)) - *off;
}

int shmq__slabs_map(const struct shmq__slabs *s, lay_ref ref, uint64_t bytes,
		    enum shmq__slabs_mode mode, void **out)
{
	struct held h = find(s, LAY_REF_SLAB(ref));
	int prot = mode == SHMQ__SLAB_WRITE ? PROT_READ | PROT_WRITE : PROT_READ;
	int fd = h.fd[mode] >= 0         ? h.fd[mode] :
		 mode == SHMQ__SLAB_READ ? h.fd[SHMQ__SLAB_WRITE] :
					   -1;
	uint64_t off, span;
	void *mem;
	int error;

	if (!ref || !bytes || !in_bounds(&h, LAY_REF_OFF(ref), bytes))
		return SHMQ_ECORRUPT;
	if (fd < 0)
		return -EACCES;
	pages_around(&h, ref, bytes, &off, &span);
	error = shmq__shmem_map(fd, off, span, prot, &mem);
	if (error)
		return error == -ENOMEM ? SHMQ_ELIMIT : error;
	*out = (char *)mem + (LAY_REF_OFF(ref) - off);
	return 0;
}

void shmq__slabs_unmap(const struct shmq__slabs *s, lay_ref ref, uint64_t bytes, void *mem)
{
	struct held h = find(s, LAY_REF_SLAB(ref));
	uint64_t off, span;

	if (!mem)
		return;
	pages_around(&h, ref, bytes, &off, &span);
	shmq__shmem_unmap((char *)mem - (LAY_REF_OFF(ref) - off), span);
}

int shmq__slabs_fd(const struct shmq__slabs *s, unsigned id, enum shmq__slabs_mode mode)
{
	return find(s, id).fd[mode];
}

struct lay_client *shmq__slabs_client(const struct shmq__slabs *s, unsigned id)
{
	if (!id || id > LAY_CLIENT_MAX || !s->registry)
		return NULL;
	return (struct lay_client *)((char *)s->registry + LAY_CLIENTS_OFF) + id;
}

struct lay_topic *shmq__slabs_topic(const struct shmq__slabs *s, uint32_t index)
{
	if (!s->registry || index >= load_acquire(&s->registry->topic_count) ||
	    index >= LAY_TOPICS_MAX)
		return NULL;
	return (struct lay_topic *)((char *)s->registry + LAY_TOPICS_OFF) + index;
}

struct lay_arena *shmq__slabs_arena(const struct shmq__slabs *s, uint32_t id)
{
	if (!s->registry || id >= load_acquire(&s->registry->arena_count) || id >= LAY_ARENAS_MAX)
		return NULL;
	return (struct lay_arena *)((char *)s->registry + LAY_ARENAS_OFF) + id;
}

struct lay_slab *shmq__slabs_slab(const struct shmq__slabs *s, unsigned id)
{
	if (!s->registry || id >= load_acquire(&s->registry->slab_count) || id >= LAY_SLABS_MAX)
		return NULL;
	return (struct lay_slab *)((char *)s->registry + LAY_SLABS_OFF) + id;
}
