/* SPDX-License-Identifier: MIT
 *
 * LMDB: a transaction for each append, its sync as it is by default, keys in
 * their order (MDB_APPEND).
 */
#include "store.h"

#include <lmdb.h>
#include <stdlib.h>

#define MAP_BYTES ((size_t)4 << 30)

struct lmdb {
	MDB_env *env;
	MDB_dbi dbi;
	size_t bytes, next;
};

static void close_store(void *store)
{
	struct lmdb *l = store;

	mdb_env_close(l->env);
	free(l);
}

static int begin(struct lmdb *l, unsigned flags, MDB_txn **txn)
{
	int rc = mdb_txn_begin(l->env, NULL, flags, txn);

	return rc ? store_error(mdb_strerror(rc)) : 0;
}

static void *open_store(const char *dir, size_t bytes)
{
	struct lmdb *l = calloc(1, sizeof(*l));
	MDB_txn *txn;
	int rc;

	if (!l || mdb_env_create(&l->env)) {
		free(l);
		return NULL;
	}
	l->bytes = bytes;
	rc = mdb_env_set_mapsize(l->env, MAP_BYTES);
	if (!rc)
		rc = mdb_env_open(l->env, dir, 0, 0600);
	if (!rc)
		rc = mdb_txn_begin(l->env, NULL, 0, &txn);
	if (!rc) {
		rc = mdb_dbi_open(txn, NULL, MDB_INTEGERKEY | MDB_CREATE, &l->dbi);
		rc = rc ? rc : mdb_txn_commit(txn);
	}
	if (!rc)
		return l;
	store_error(mdb_strerror(rc));
	close_store(l);
	return NULL;
}

static int append(void *store, const char *records, unsigned n)
{
	struct lmdb *l = store;
	MDB_txn *txn;
	unsigned i;
	int rc = 0;

	if (begin(l, 0, &txn))
		return -1;
	for (i = 0; !rc && i < n; i++, l->next++) {
		MDB_val key = { sizeof(l->next), &l->next };
		MDB_val value = { l->bytes, (void *)(uintptr_t)(records + i * l->bytes) };

		rc = mdb_put(txn, l->dbi, &key, &value, MDB_APPEND);
	}
	if (rc)
		mdb_txn_abort(txn);
	else
		rc = mdb_txn_commit(txn);
	return rc ? store_error(mdb_strerror(rc)) : 0;
}

static int read_all(void *store, int (*call)(void *arg, const void *record, size_t bytes),
		    void *arg)
{
	struct lmdb *l = store;
	MDB_val key, value;
	MDB_cursor *cursor;
	MDB_txn *txn;
	int rc;

	if (begin(l, MDB_RDONLY, &txn))
		return -1;
	rc = mdb_cursor_open(txn, l->dbi, &cursor);
	if (!rc) {
		while (!(rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) &&
		       !call(arg, value.mv_data, value.mv_size))
			;
		mdb_cursor_close(cursor);
	}
	mdb_txn_abort(txn);
	return rc && rc != MDB_NOTFOUND ? store_error(mdb_strerror(rc)) : 0;
}

static const char *version(void)
{
	static char text[32];
	int major, minor, patch;

	mdb_version(&major, &minor, &patch);
	snprintf(text, sizeof(text), "%d.%d.%d", major, minor, patch);
	return text;
}

const struct store bench_store = { .name = "lmdb",
				   .version = version,
				   .open = open_store,
				   .append = append,
				   .read = read_all,
				   .close = close_store };
