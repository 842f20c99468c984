/* SPDX-License-Identifier: MIT
 *
 * The linker puts the functions below (--wrap) in the places of the C
 * library's for what is linked statically: this library and the test.
 */
#include "memory.h"

#include "atomics.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

static __thread unsigned scarce;

void scarce_begin(unsigned k)
{
	scarce = k;
}

int scarce_end(void)
{
	int met = !scarce;

	scarce = 0;
	return met;
}

static _Atomic int no_maps;

void scarce_maps(int on)
{
	store_relaxed(&no_maps, on);
}

static _Atomic int is_one;

void memory_is_one(void)
{
	store_relaxed(&is_one, 1);
}

static _Atomic int is_guarded;

void guard_maps(void)
{
	store_relaxed(&is_guarded, 1);
}

static int is_refused(void)
{
	if (!scarce || --scarce)
		return 0;
	errno = ENOMEM;
	return 1;
}

static int is_map_refused(int fd)
{
	if (fd < 0 || !load_relaxed(&no_maps))
		return is_refused();
	errno = ENOMEM;
	return 1;
}

/* The linker calls the C library's own by these names. */
__typeof__(malloc) __real_malloc, __wrap_malloc;
__typeof__(calloc) __real_calloc, __wrap_calloc;
__typeof__(posix_memalign) __real_posix_memalign, __wrap_posix_memalign;
__typeof__(realloc) __real_realloc, __wrap_realloc;
__typeof__(mmap) __real_mmap, __wrap_mmap;
__typeof__(munmap) __real_munmap, __wrap_munmap;

void *__wrap_malloc(size_t bytes)
{
	return is_refused() ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t n, size_t bytes)
{
	return is_refused() ? NULL : __real_calloc(n, bytes);
}

int __wrap_posix_memalign(void **mem, size_t multiple, size_t bytes)
{
	return is_refused() ? ENOMEM : __real_posix_memalign(mem, multiple, bytes);
}

void *__wrap_realloc(void *mem, size_t bytes)
{
	return is_refused() ? NULL : __real_realloc(mem, bytes);
}

#ifdef __SANITIZE_THREAD__

/* Files up to this size are mapped as a whole, of larger ones the ranges that
 * are asked for: the slabs of rings and arenas exceed what TSan gives to a
 * process, and everybody maps the same ranges of them. */
#define WHOLE_BYTES (INT64_C(64) << 30)

struct region {
	struct region *next;
	dev_t dev;
	ino_t ino;
	off_t off;
	size_t bytes;
	char *at;
	unsigned users;
};

static struct region *regions;
static pthread_mutex_t regions_lock = PTHREAD_MUTEX_INITIALIZER;

static struct region *find_file(const struct stat *st, off_t off, size_t bytes)
{
	struct region *r;

	for (r = regions; r; r = r->next)
		if (r->dev == st->st_dev && r->ino == st->st_ino && r->off <= off &&
		    (size_t)(off - r->off) + bytes <= r->bytes)
			return r;
	return NULL;
}

static void *map_file(size_t bytes, int flags, int fd, off_t off)
{
	struct region *r;
	struct stat st;

	if (fstat(fd, &st))
		return MAP_FAILED;
	r = find_file(&st, off, bytes);
	if (!r) {
		int whole = st.st_size <= WHOLE_BYTES;

		r = calloc(1, sizeof(*r));
		if (!r)
			return MAP_FAILED;
		r->dev = st.st_dev;
		r->ino = st.st_ino;
		r->off = whole ? 0 : off;
		r->bytes = whole ? (size_t)st.st_size : bytes;
		r->at = __real_mmap(NULL, r->bytes, PROT_READ | PROT_WRITE, flags, fd, r->off);
		if (r->at == MAP_FAILED) {
			free(r);
			return MAP_FAILED;
		}
		r->next = regions;
		regions = r;
	}
	r->users++;
	return r->at + (off - r->off);
}

void *__wrap_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t off)
{
	void *mem;

	if (is_map_refused(fd))
		return MAP_FAILED;
	if (fd < 0 || !(flags & MAP_SHARED) || !load_relaxed(&is_one))
		return __real_mmap(at, bytes, prot, flags, fd, off);
	pthread_mutex_lock(&regions_lock);
	mem = map_file(bytes, flags, fd, off);
	pthread_mutex_unlock(&regions_lock);
	return mem;
}

int __wrap_munmap(void *at, size_t bytes)
{
	struct region **link, *r;
	int rc = 0;

	pthread_mutex_lock(&regions_lock);
	for (link = &regions; (r = *link); link = &r->next)
		if ((char *)at >= r->at && (char *)at < r->at + r->bytes)
			break;
	if (!r) {
		rc = __real_munmap(at, bytes);
	} else if (!--r->users) {
		rc = __real_munmap(r->at, r->bytes);
		*link = r->next;
		free(r);
	}
	pthread_mutex_unlock(&regions_lock);
	return rc;
}

#else

#define GUARD_BYTES 4096u

/* In the middle of a range that is kept free. */
static void *map_guarded(size_t bytes, int prot, int flags, int fd, off_t off)
{
	size_t whole = bytes + 2 * GUARD_BYTES;
	char *range = __real_mmap(NULL, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	void *mem = MAP_FAILED;

	if (range == MAP_FAILED)
		return range;
	mem = __real_mmap(range + GUARD_BYTES, bytes, prot, flags | MAP_FIXED, fd, off);
	if (mem == MAP_FAILED) {
		int error = errno;

		__real_munmap(range, whole);
		errno = error;
	}
	return mem;
}

int __wrap_munmap(void *at, size_t bytes)
{
	if (load_relaxed(&is_guarded))
		return __real_munmap((char *)at - GUARD_BYTES, bytes + 2 * GUARD_BYTES);
	return __real_munmap(at, bytes);
}

void *__wrap_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t off)
{
	if (is_map_refused(fd))
		return MAP_FAILED;
	if (!at && load_relaxed(&is_guarded))
		return map_guarded(bytes, prot, flags, fd, off);
	return __real_mmap(at, bytes, prot, flags, fd, off);
}

#endif
