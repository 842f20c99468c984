/* SPDX-License-Identifier: MIT
 *
 * SQLite with a write-ahead log that is synced by each transaction: one for
 * each append, its statement prepared.
 */
#include "store.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>

struct sqlite {
	sqlite3 *db;
	sqlite3_stmt *insert;
	size_t bytes;
	sqlite3_int64 next;
};

static void close_store(void *store)
{
	struct sqlite *s = store;

	sqlite3_finalize(s->insert);
	sqlite3_close(s->db);
	free(s);
}

static int run(struct sqlite *s, const char *sql)
{
	return sqlite3_exec(s->db, sql, NULL, NULL, NULL) ? store_error(sqlite3_errmsg(s->db)) : 0;
}

static void *open_store(const char *dir, size_t bytes)
{
	struct sqlite *s = calloc(1, sizeof(*s));
	char path[4096];

	if (!s)
		return NULL;
	s->bytes = bytes;
	snprintf(path, sizeof(path), "%s/records.db", dir);
	if (!sqlite3_open(path, &s->db) &&
	    !run(s, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
		    "CREATE TABLE record (number INTEGER PRIMARY KEY, data BLOB)") &&
	    !sqlite3_prepare_v2(s->db, "INSERT INTO record VALUES (?, ?)", -1, &s->insert, NULL))
		return s;
	store_error(sqlite3_errmsg(s->db));
	close_store(s);
	return NULL;
}

static int append(void *store, const char *records, unsigned n)
{
	struct sqlite *s = store;
	unsigned i;

	if (run(s, "BEGIN"))
		return -1;
	for (i = 0; i < n; i++) {
		sqlite3_bind_int64(s->insert, 1, s->next++);
		sqlite3_bind_blob(s->insert, 2, records + i * s->bytes, (int)s->bytes,
				  SQLITE_STATIC);
		if (sqlite3_step(s->insert) != SQLITE_DONE)
			return store_error(sqlite3_errmsg(s->db));
		sqlite3_reset(s->insert);
	}
	return run(s, "COMMIT");
}

static int read_all(void *store, int (*call)(void *arg, const void *record, size_t bytes),
		    void *arg)
{
	struct sqlite *s = store;
	sqlite3_stmt *select;
	int rc;

	if (sqlite3_prepare_v2(s->db, "SELECT data FROM record ORDER BY number", -1, &select, NULL))
		return store_error(sqlite3_errmsg(s->db));
	while ((rc = sqlite3_step(select)) == SQLITE_ROW &&
	       !call(arg, sqlite3_column_blob(select, 0), (size_t)sqlite3_column_bytes(select, 0)))
		;
	sqlite3_finalize(select);
	return rc == SQLITE_DONE || rc == SQLITE_ROW ? 0 : store_error(sqlite3_errmsg(s->db));
}

static const char *version(void)
{
	return sqlite3_libversion();
}

const struct store bench_store = { .name = "sqlite",
				   .version = version,
				   .open = open_store,
				   .append = append,
				   .read = read_all,
				   .close = close_store };
