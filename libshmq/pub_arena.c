/* SPDX-License-Identifier: MIT
 *
 * pub_arena: the publisher's arena: where payloads lie that do not fit into a
 * slot, and which slots refer to them.
 */
#include "pub.h"

#include <errno.h>

#define FEW 8u /* fit into an arena: large messages */

/* The bytes of the oldest piece, which is `piece`, are free from here on. */
static void drop_oldest(struct shmq__arena *a, struct lane *l, const struct arena_piece *piece)
{
	shmq__ring_gone(&l->w, piece->seq, piece->word);
	arena_drop(a);
}

int shmq__pub_take_arena(struct shmq_pub *pub, size_t bytes, struct lay_arena_ref *where)
{
	struct shmq__arena *a = &pub->arena;
	struct arena_piece *piece;
	int error;

	if (!a->mem || bytes > a->bytes)
		return SHMQ_ETOOBIG;
	while ((piece = arena_in_the_way(a, bytes))) {
		struct lane *l = &pub->lane[piece->partition];

		if (!piece->word) /* our own, not committed yet */
			return pub->claim.kind == CLAIM_ARENA &&
					       pub->claim.data == a->mem + piece->off ?
				       SHMQ_ECLAIM :
				       SHMQ_EBATCH;
		if (piece->word == PIECE_ABORTED) {
			arena_drop(a);
			continue;
		}
		if (pub->gates && seq_diff(l->w.limit, piece->seq + l->w.geo.depth) <= 0) {
			error = shmq__pub_wait_for_credit(pub, l, piece->seq + l->w.geo.depth + 1);
			if (error)
				return error;
		}
		drop_oldest(a, l, piece);
	}
	piece = arena_take(a, bytes);
	if (!piece)
		return -ENOMEM;
	*where = (struct lay_arena_ref){ .id = a->id, .gen = a->gen, .off = piece->off };
	return 0;
}

void shmq__pub_rewind_arena(struct shmq_pub *pub, size_t bytes)
{
	struct shmq__arena *a = &pub->arena;
	struct lane *l = &pub->lane[0];
	uint64_t depth = l->w.geo.depth;
	struct arena_piece *piece;

	if (!pub->gates || pub->invalidates || pub->h.topic->geo.partitions > 1 ||
	    bytes < a->bytes / FEW || !a->count)
		return;
	piece = shmq__arena_last(a);
	if (piece->off < arena_lines(bytes) || !piece->word || piece->word == PIECE_ABORTED)
		return;
	/* Where nobody reads, all is kept for whoever comes. */
	if (seq_diff(l->w.limit, piece->seq + depth + 1) < 0 &&
	    (!shmq__credit_gaters(&l->credit) ||
	     shmq__pub_raise_limit(l, piece->seq + depth + 1) <= 0))
		return;
	while (a->count > 1) {
		piece = arena_at(a, 0);
		if (piece->word == PIECE_ABORTED)
			arena_drop(a);
		else if (piece->word && seq_diff(l->w.limit, piece->seq + depth) > 0)
			drop_oldest(a, l, piece);
		else
			return;
	}
	arena_rewind(a);
}

void shmq__pub_prepare_arena(struct shmq_pub *pub, size_t bytes)
{
	struct shmq__arena *a = &pub->arena;
	struct arena_piece *piece = arena_in_the_way(a, bytes);
	uint64_t need;
	struct lane *l;

	prefetch_write(a->mem + arena_place(a, bytes));
	if (!piece)
		arena_look_ahead(a, bytes);
	if (!pub->gates || !piece || !piece->word || piece->word == PIECE_ABORTED)
		return;
	l = &pub->lane[piece->partition];
	need = piece->seq + l->w.geo.depth + 1;
	if (seq_diff(l->w.limit, need) < 0)
		shmq__pub_raise_limit(l, need);
	/* What all have read goes now, but what is there for whoever joins is
	 * never nothing; if it may not go yet, the claim waits. */
	if (seq_diff(l->w.limit, need) < 0 || a->count < 2)
		return;
	drop_oldest(a, l, piece);
	arena_look_ahead(a, bytes);
}

struct arena_piece *shmq__pub_find_piece(struct shmq_pub *pub, uint64_t off)
{
	struct shmq__arena *a = &pub->arena;
	unsigned i = a->count;

	while (i--) {
		struct arena_piece *piece = arena_at(a, i);

		if (piece->off == off)
			return piece;
	}
	return NULL;
}

void shmq__pub_settle_arena(struct shmq_pub *pub, const struct lane *l, uint64_t seq, uint64_t off)
{
	struct arena_piece *piece = shmq__pub_find_piece(pub, off);

	if (!piece)
		return;
	piece->seq = seq;
	piece->partition = (uint32_t)(l - pub->lane);
	piece->word = LAY_CTRL(lay_lap(&l->w.geo, seq), l->w.owner, LAY_COMMITTED);
}

/* What an earlier publisher left in the arena that is ours now. */
static int adopt_arena(struct shmq_pub *pub, uint32_t p)
{
	struct lane *l = &pub->lane[p];
	uint64_t head, n = l->w.mem->base_seq;
	struct arena_piece piece;
	int error;

	head = shmq__topic_head(&pub->h.topic->ring[p]);
	if (head - n > l->w.geo.depth) /* or mad */
		n = head - l->w.geo.depth;
	for (; seq_diff(n, head) < 0; n++) {
		struct lay_arena_ref where;
		struct lay_slot s;
		uint64_t word;

		if (!shmq__ring_arena_ref(l->w.mem, &l->w.geo, n, &s, &where) ||
		    where.id != pub->arena.id || where.gen != pub->arena.gen)
			continue;
		word = load_relaxed(&s.ctrl);
		if (lay_lap_diff(LAY_CTRL_LAP(word), lay_lap(&l->w.geo, n)))
			continue;
		piece = (struct arena_piece){
			.off = where.off, .bytes = s.len, .seq = n, .word = word, .partition = p
		};
		error = shmq__arena_adopt(&pub->arena, &piece);
		if (error)
			return error;
	}
	return 0;
}

int shmq__pub_open_arena(struct shmq_pub *pub, struct shmq__why *why)
{
	struct lay_arena *rec;
	uint64_t bytes;
	void *mem;
	uint32_t p;
	int error;

	if (!pub->h.arena)
		return 0;
	rec = shmq__slabs_arena(pub->h.bus->slabs, pub->h.arena - 1);
	if (!rec)
		return SHMQ_ECORRUPT;
	pub->arena_ref = rec->mem;
	bytes = rec->bytes;
	error = shmq__slabs_map(pub->h.bus->slabs, pub->arena_ref, bytes, SHMQ__SLAB_WRITE, &mem);
	if (error)
		return shmq__fail(why, error, "mapping the arena of \"%s\": %s",
				  pub->h.topic->rec->name, shmq_strerror(error));
	shmq__arena_init(&pub->arena, mem, bytes, pub->h.arena - 1,
			 (uint32_t)load_relaxed(&rec->gen));
	for (p = 0; p < pub->h.topic->geo.partitions; p++) {
		error = adopt_arena(pub, p);
		if (error)
			return error;
	}
	shmq__arena_adopt_done(&pub->arena);
	return 0;
}
