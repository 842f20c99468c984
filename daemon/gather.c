/* SPDX-License-Identifier: MIT */
#include "gather.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "layout.h"
#include "log.h"
#include "manifest.h"
#include "proto.h"
#include "registry.h"
#include "service.h"
#include "shmem.h"
#include "wire.h"

/* Clients look every 0.2 s at least. */
#define GATHER_NS INT64_C(2000000000)
#define CALLERS 32

struct gather {
	const struct options *o;
	struct manifest m;
	struct link_slab *slab;
	struct pollfd poll[2 + CALLERS]; /* signals, the socket, callers */
	unsigned callers, stored;
	struct log_limit refuse_limit;
	int is_to_reload;         /* SIGHUP came */
	struct shmq__why foreign; /* why this build cannot serve the bus; "" if it can */
};

/* ---- one descriptor -------------------------------------------------- */

/* As the manifest has it: the very memory, not just some like it. */
static int check_memory(const struct manifest_slab *want, unsigned id, int fd,
			struct shmq__why *why)
{
	struct stat st;

	if (!want->is.kind)
		return shmq__fail(why, SHMQ_EPROTO, "this bus had no slab %u", id);
	if (fstat(fd, &st) || (uint64_t)st.st_dev != want->dev || (uint64_t)st.st_ino != want->ino)
		return shmq__fail(why, SHMQ_EPROTO, "slab %u is not in the manifest: another file",
				  id);
	if ((uint64_t)st.st_size != want->is.bytes)
		return shmq__fail(why, SHMQ_EPROTO, "slab %u is not in the manifest: another size",
				  id);
	if (!shmq__shmem_is_sealed(fd, want->is.bytes))
		return shmq__fail(why, SHMQ_EPROTO, "slab %u is not sealed", id);
	return 0;
}

/* A description of our own: clients are given most of them for reading only. */
static int reopen(int fd, struct shmq__why *why)
{
	int again = shmq__shmem_reopen_writable(fd);

	if (again == -EACCES && !fchmod(fd, 0600))
		again = shmq__shmem_reopen_writable(fd);
	if (again < 0)
		return shmq__fail(why, again, "opening it for writing: %s", strerror(-again));
	return again;
}

static int take(struct gather *g, unsigned id, int fd, struct shmq__why *why)
{
	int error, again;

	if (id >= LINK_SLABS_MAX)
		return shmq__fail(why, SHMQ_EPROTO, "this bus had no slab %u", id);
	error = check_memory(&g->m.slab[id], id, fd, why);
	if (error || g->slab[id].fd >= 0)
		return error;
	again = reopen(fd, why);
	if (again < 0)
		return again;
	/* An inode number may be given twice, a nonce not. */
	error = id ? 0 : registry_check(again, g->m.nonce, why);
	if (error) {
		if (error == SHMQ_EVERSION)
			g->foreign = *why;
		close(again);
		return error;
	}
	g->slab[id] = g->m.slab[id].is;
	g->slab[id].fd = again;
	return 0;
}

/* Of extra ones those may be missing that nobody had any more, or only who has
 * died as well. */
enum which { ALL_SLABS, NO_EXTRA };
static int is_complete(const struct gather *g, enum which which)
{
	unsigned i;

	for (i = 0; i < LINK_SLABS_MAX; i++)
		if (g->m.slab[i].is.kind && g->slab[i].fd < 0 &&
		    !(which == NO_EXTRA && g->m.slab[i].is.extra))
			return 0;
	return 1;
}

/* ---- one message ----------------------------------------------------- */

static int check_offer(const struct gather *g, int sock, const struct proto_request *req,
		       unsigned fd_count, struct shmq__why *why)
{
	struct access_caller who;
	int is_known = !access_identify(sock, &who) && access_knows(g->o->access, &who);

	access_forget(&who);
	if (!is_known)
		return shmq__fail(why, SHMQ_EACCESS, "this bus belongs to uid %u",
				  (unsigned)geteuid());
	if (req->magic != PROTO_MAGIC || req->version != PROTO_VERSION || req->op != PROTO_OFFER)
		return shmq__fail(why, SHMQ_EPROTO, "it is none of this protocol");
	if (req->offer.bus_nonce != g->m.nonce)
		return shmq__fail(why, SHMQ_ELOST, "it is of a bus that is gone");
	if (req->offer.fd_count != fd_count)
		return shmq__fail(why, SHMQ_EPROTO, "it speaks of %u descriptors and has %u",
				  req->offer.fd_count, fd_count);
	return 0;
}

/* Take what there is to take; the first thing wrong is the answer. */
static void take_offer(struct gather *g, int sock, const struct proto_request *req, const int *fds,
		       unsigned fd_count)
{
	struct proto_reply reply = {
		.magic = PROTO_MAGIC, .version = PROTO_VERSION, .op = req->op, .token = req->token
	};
	struct shmq__why why = { "" }, first = { "" };
	int error = check_offer(g, sock, req, fd_count, &first), rc;
	unsigned i, held;

	for (i = 0; i < fd_count && !*first.text; i++) {
		rc = take(g, req->offer.fd[i].slab, fds[i], &why);
		if (rc && !error) {
			error = rc;
			first = why;
		}
	}
	if (error && log_may(&g->refuse_limit, &held))
		log_warn("refused an offer: %s", first.text);
	reply.error = error;
	memcpy(reply.why, first.text, strnlen(first.text, sizeof(reply.why) - 1));
	shmq__wire_send(sock, &reply, sizeof(reply), NULL, 0); /* who waits for it gets it */
}

/* ---- the loop -------------------------------------------------------- */

static void drop_caller(struct gather *g, unsigned i)
{
	close(g->poll[i].fd);
	g->callers--;
	memmove(&g->poll[i], &g->poll[i + 1], (2 + g->callers - i) * sizeof(g->poll[0]));
}

static void hear(struct gather *g, unsigned i)
{
	struct proto_request req;
	struct shmq__why why = { "" };
	int fds[WIRE_FDS_MAX], rc;
	unsigned n, held;

	rc = shmq__wire_recv(g->poll[i].fd, &req, sizeof(req), fds, &n);
	if (rc == 1)
		take_offer(g, g->poll[i].fd, &req, fds, n);
	while (n)
		close(fds[--n]);
	if (rc == 1 || rc == -EAGAIN)
		return;
	if (rc == -EMFILE || rc == -EMSGSIZE) {
		shmq__fail(&why, SHMQ_EPROTO, "%s",
			   rc == -EMFILE ? "it has too many descriptors" : "it has another size");
		if (log_may(&g->refuse_limit, &held))
			log_warn("refused an offer: %s", why.text);
	}
	drop_caller(g, i);
}

/* Who says nothing makes room. */
static void accept_caller(struct gather *g)
{
	int fd = accept4(g->poll[1].fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	if (g->callers == CALLERS)
		drop_caller(g, 2);
	g->poll[2 + g->callers++] = (struct pollfd){ .fd = fd, .events = POLLIN };
}

/* What a service manager kept for us is looked at as any other offer is. */
static void take_stored(struct gather *g)
{
	struct shmq__why why = { "" };
	unsigned id;
	int fd;

	while ((fd = service_next_slab(&id)) >= 0) {
		if (take(g, id, fd, &why))
			log_warn("refused slab %u of the descriptor store: %s", id, why.text);
		else
			g->stored++;
		if (g->slab[id].fd < 0)
			service_forget(id);
		close(fd);
	}
}

/* Of the parent's signals two end a start. */
static int is_to_stop(struct gather *g)
{
	struct signalfd_siginfo info;

	while (read(g->poll[0].fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		if (info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT)
			return 1;
		g->is_to_reload |= info.ssi_signo == SIGHUP;
		if (info.ssi_signo == SIGUSR2)
			log_warn("SIGUSR2: bus \"%s\" is not served yet", g->o->bus);
	}
	return 0;
}

/* 1, 0, -ECANCELED or SHMQ_EVERSION. */
static int listen_to_clients(struct gather *g)
{
	uint64_t deadline = shmq__clock_deadline(GATHER_NS);
	unsigned i;

	while (!is_complete(g, ALL_SLABS) && !*g->foreign.text && shmq__clock_left(deadline)) {
		if (poll(g->poll, 2 + g->callers, shmq__clock_left_ms(deadline)) < 0)
			continue;
		if (g->poll[0].revents && is_to_stop(g))
			return -ECANCELED;
		for (i = 2 + g->callers; i-- > 2;)
			if (g->poll[i].revents)
				hear(g, i);
		if (g->poll[1].revents)
			accept_caller(g);
	}
	return *g->foreign.text ? SHMQ_EVERSION : is_complete(g, NO_EXTRA);
}

/* ---- what does not come back ----------------------------------------- */

static void mourn_topics(const struct gather *g)
{
	struct lay_registry *head;
	struct lay_topic *t;
	uint32_t i, count;
	void *mem;

	if (g->slab[0].fd < 0 ||
	    shmq__shmem_map(g->slab[0].fd, 0, LAY_REGISTRY_BYTES, PROT_READ, &mem))
		return;
	head = mem;
	t = (struct lay_topic *)(void *)((char *)mem + LAY_TOPICS_OFF);
	count = load_relaxed(&head->topic_count);
	for (i = 0; i < count && i < LAY_TOPICS_MAX; i++)
		if (load_relaxed(&t[i].state) == LAY_TOPIC_LIVE)
			log_warn("lost: topic \"%.255s\"", t[i].name);
	shmq__shmem_unmap(mem, LAY_REGISTRY_BYTES);
}

static void let_go(struct gather *g)
{
	unsigned i;

	for (i = 0; i < LINK_SLABS_MAX; i++) {
		if (g->slab[i].fd >= 0)
			close(g->slab[i].fd);
		g->slab[i].fd = -1;
	}
}

int gather_run(const struct files *f, const struct options *o, int signal_fd,
	       struct link_slab slab[LINK_SLABS_MAX], uint64_t *nonce, struct shmq__why *why)
{
	struct gather g = { .slab = slab, .o = o };
	uint64_t from = shmq__clock_monotonic_ns();
	int rc = manifest_read(f, &g.m);

	if (rc == -ENOENT)
		return 0;
	if (rc || !g.m.nonce || !g.m.slab[0].is.kind) {
		manifest_mourn(f);
		return 0;
	}
	g.poll[0] = (struct pollfd){ .fd = signal_fd, .events = POLLIN };
	g.poll[1] = (struct pollfd){
		.fd = files_listen(f, f->back,
				   access_has_rules(o->access) ? FILES_EVERYBODY : FILES_OWNER),
		.events = POLLIN
	};
	if (g.poll[1].fd < 0)
		log_error("listening at %s: %s", f->back, strerror(-g.poll[1].fd));
	log_info("the bus's last supervisor ended without a survivor: listening at %s to what its "
		 "clients offer",
		 f->back);
	take_stored(&g);
	rc = listen_to_clients(&g);
	unlink(f->back);
	if (g.is_to_reload) /* is heard again, when there is somebody to do it */
		kill(getpid(), SIGHUP);
	while (g.callers)
		drop_caller(&g, 2);
	if (g.poll[1].fd >= 0)
		close(g.poll[1].fd);
	if (rc == 1) {
		*nonce = g.m.nonce;
		log_info("%s brought every slab back%s, in %llu ms",
			 g.stored ? "the descriptor store and clients" : "its clients",
			 is_complete(&g, ALL_SLABS) ? "" : " but some that nobody had",
			 (unsigned long long)((shmq__clock_monotonic_ns() - from) / 1000000));
		return 1;
	}
	if (!rc) {
		mourn_topics(&g);
		manifest_mourn(f);
	}
	let_go(&g);
	if (rc == SHMQ_EVERSION)
		shmq__fail(why, rc,
			   "bus \"%s\" is held by its clients, but its %s: start the shmqd that it "
			   "was left by, or end its clients",
			   o->bus, g.foreign.text);
	return rc;
}
