/* SPDX-License-Identifier: MIT
 *
 * metrics: the numbers of a bus as text for Prometheus.
 *
 * A process of its own, a client that reads what stands in shared memory: the
 * supervisor is not asked, and is not in the way of who asks.
 */
#include "../sandbox.h"
#include "top.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define CONNECTIONS 64u                  /* of scrapers at once; */
#define CONNECTIONS_KEPT 32u             /* of more the oldest is cut, */
#define PATIENCE_NS INT64_C(10000000000) /* as are those that are older */
#define IDLE_S 10u
/* To look at thousands of topics takes a while, and the text is long: beyond so many who
 * are connected one look a second is given to all. */
#define CROWD 8u
#define CROWD_NS INT64_C(1000000000)

struct metrics {
	struct cli *cli;
	const char *listen;
	/* Of the thread that serves. */
	struct {
		int sock;
		int64_t since_ns;
	} open[CONNECTIONS]; /* the oldest first */
	unsigned open_count;
	struct MHD_Response *last; /* given to a crowd, or NULL */
	int64_t last_ns;
};

static const struct opt options[] = {
	{ "listen", .kind = OPT_TEXT, OPT_AT(struct metrics, listen), .arg = "ADDR",
	  .help = "serve them over HTTP: 127.0.0.1:PORT, [::1]:PORT or\n"
		  "unix:PATH; without it they are printed once" },
};

/* ---- text ---------------------------------------------------------------- */

static void put_label(FILE *out, const char *name, const char *value)
{
	fprintf(out, "%s=\"", name);
	for (; *value; value++)
		if (*value == '\\' || *value == '"')
			fprintf(out, "\\%c", *value);
		else if (*value == '\n')
			fputs("\\n", out);
		else if ((unsigned char)*value >= 0x80)
			fputc('?', out);
		else
			fputc(*value, out);
	fputc('"', out);
}

static void put_family(FILE *out, const char *name, const char *type, const char *help)
{
	fprintf(out, "# HELP shmq_%s %s\n# TYPE shmq_%s %s\n", name, help, name, type);
}

/* A family's name says what it is: counters end in _total. */
static const char *type_of(const char *name)
{
	size_t len = strlen(name);

	return len > 6 && !strcmp(name + len - 6, "_total") ? "counter" : "gauge";
}

static void put_bus(FILE *out, const struct shmq_bus_info *bus)
{
	const struct {
		const char *name, *help;
		uint64_t value;
	} all[] = {
		{ "bus_clients", "Processes attached to the bus.", bus->clients },
		{ "bus_topics", "Topics of the bus.", bus->topics },
		{ "bus_memory_bytes", "Shared memory in use.", bus->bytes },
		{ "bus_worker_starts_total", "Control workers so far.", bus->epoch },
		{ "bus_start_time_seconds", "When the bus began.", bus->started_ns / 1000000000 },
	};
	size_t i;

	for (i = 0; i < ARRAY_COUNT(all); i++) {
		put_family(out, all[i].name, type_of(all[i].name), all[i].help);
		fprintf(out, "shmq_%s{", all[i].name);
		put_label(out, "bus", bus->name);
		fprintf(out, "} %llu\n", (unsigned long long)all[i].value);
	}
}

enum { ALL, LOGGED };
#define VALUE(name, type, expression) \
	static uint64_t name(const struct type *x) \
	{ \
		return (expression); \
	}
VALUE(t_messages, top_topic, x->info.head)
VALUE(t_publishers, top_topic, x->info.publishers)
VALUE(t_subscribers, top_topic, x->info.subscribers)
VALUE(t_sleepers, top_topic, x->info.sleepers)
VALUE(t_ring, top_topic, x->info.ring_bytes)
VALUE(t_arena, top_topic, x->info.arena_bytes)
VALUE(t_lag, top_topic, x->holder.slowest.client >= 0 ? x->holder.lag : 0)
VALUE(t_held, top_topic, x->holder.holds_back != 0)
VALUE(t_lost, top_topic, x->info.stats.lost)
VALUE(t_dropped, top_topic, x->info.stats.dropped)
VALUE(t_evictions, top_topic, x->info.stats.evictions)
VALUE(t_behind, top_topic, x->log_behind)
VALUE(t_unsynced, top_topic, x->log_unsynced)
VALUE(t_stands, top_topic, x->log_error != 0)
VALUE(p_count, top_peer, x->info.count)
VALUE(p_bytes, top_peer, x->info.bytes)
VALUE(p_lost, top_peer, x->info.lost)
VALUE(p_lag, top_peer, x->info.lag)
VALUE(p_waits, top_peer, x->info.waits)
VALUE(p_memory, top_peer, x->info.arena_bytes + x->info.page_bytes)

static const struct {
	const char *name, *help;
	uint64_t (*value)(const struct top_topic *topic);
	int which;
} of_topics[] = {
	{ "topic_messages_total", "Messages published, holes included.", t_messages, ALL },
	{ "topic_publishers", "Publishers that have it open.", t_publishers, ALL },
	{ "topic_subscribers", "Subscribers that have it open.", t_subscribers, ALL },
	{ "topic_sleepers", "Subscribers asleep.", t_sleepers, ALL },
	{ "topic_ring_bytes", "Shared memory of its rings.", t_ring, ALL },
	{ "topic_arena_bytes", "Shared memory of its publishers' arenas.", t_arena, ALL },
	{ "topic_lag_messages", "How far the slowest gating subscriber is behind.", t_lag, ALL },
	{ "topic_held_back", "1 while publishers wait for it.", t_held, ALL },
	{ "topic_lost_total", "Messages that subscribers lost.", t_lost, ALL },
	{ "topic_dropped_total", "Messages that publishers dropped.", t_dropped, ALL },
	{ "topic_evictions_total", "Subscribers evicted.", t_evictions, ALL },
	{ "log_behind_messages", "Messages that are not in the log's files yet.", t_behind,
	  LOGGED },
	{ "log_unsynced_messages", "Messages in the files that a power cut could take.", t_unsynced,
	  LOGGED },
	{ "log_stands", "1 while the log does not go on.", t_stands, LOGGED },
};

static const struct {
	const char *name, *help;
	enum shmq_role role;
	uint64_t (*value)(const struct top_peer *peer);
} of_peers[] = {
	{ "publisher_sent_total", "Messages sent.", SHMQ_ROLE_PUBLISHER, p_count },
	{ "publisher_sent_bytes_total", "Bytes sent.", SHMQ_ROLE_PUBLISHER, p_bytes },
	{ "publisher_dropped_total", "Messages dropped.", SHMQ_ROLE_PUBLISHER, p_lost },
	{ "publisher_waits_total", "Times it was held back.", SHMQ_ROLE_PUBLISHER, p_waits },
	{ "publisher_memory_bytes", "Its arena and entries.", SHMQ_ROLE_PUBLISHER, p_memory },
	{ "subscriber_received_total", "Messages received.", SHMQ_ROLE_SUBSCRIBER, p_count },
	{ "subscriber_lost_total", "Messages lost.", SHMQ_ROLE_SUBSCRIBER, p_lost },
	{ "subscriber_lag_messages", "Messages it is behind.", SHMQ_ROLE_SUBSCRIBER, p_lag },
	{ "subscriber_sleeps_total", "Times it slept.", SHMQ_ROLE_SUBSCRIBER, p_waits },
};

/* Each request of a shell would make series of its own, of no use once it is over. */
static int is_private(const struct top_topic *topic)
{
	return !strncmp(topic->info.name, "$reply.", strlen("$reply."));
}

static void put_topics(FILE *out, const struct top_look *look, size_t f)
{
	size_t i;

	put_family(out, of_topics[f].name, type_of(of_topics[f].name), of_topics[f].help);
	for (i = 0; i < look->topic_count; i++) {
		const struct top_topic *topic = &look->topics[i];

		if (topic->info.ended || is_private(topic) ||
		    (of_topics[f].which == LOGGED && topic->info.log <= SHMQ_LOG_NONE))
			continue;
		fprintf(out, "shmq_%s{", of_topics[f].name);
		put_label(out, "bus", look->bus.name);
		fputc(',', out);
		put_label(out, "topic", topic->info.name);
		fprintf(out, "} %llu\n", (unsigned long long)of_topics[f].value(topic));
	}
}

/* One process may have a topic open more than once: when it did so tells its
 * handles apart. */
static void put_peers(FILE *out, const struct top_look *look, size_t f)
{
	size_t i;

	put_family(out, of_peers[f].name, type_of(of_peers[f].name), of_peers[f].help);
	for (i = 0; i < look->peer_count; i++) {
		const struct top_peer *peer = &look->peers[i];

		if (peer->info.role != of_peers[f].role || is_private(&look->topics[peer->topic]))
			continue;
		fprintf(out, "shmq_%s{", of_peers[f].name);
		put_label(out, "bus", look->bus.name);
		fputc(',', out);
		put_label(out, "topic", look->topics[peer->topic].info.name);
		fputc(',', out);
		put_label(out, "name", peer->info.client_name);
		fprintf(out, ",client=\"%u\",pid=\"%d\",opened=\"%llu\"} %llu\n",
			peer->info.client_id, (int)peer->info.pid,
			(unsigned long long)peer->info.opened_ns,
			(unsigned long long)of_peers[f].value(peer));
	}
}

/* 0 or an error of the library. */
static int put_all(shmq_bus *bus, FILE *out)
{
	struct top_look look;
	int rc = top_look(bus, &look);
	size_t f;

	if (rc == 0) {
		put_bus(out, &look.bus);
		for (f = 0; f < ARRAY_COUNT(of_topics); f++)
			put_topics(out, &look, f);
		for (f = 0; f < ARRAY_COUNT(of_peers); f++)
			put_peers(out, &look, f);
	}
	top_look_clear(&look);
	return rc;
}

/* ---- over HTTP ------------------------------------------------------------ */

static struct MHD_Response *respond_with(char *text, size_t bytes)
{
	struct MHD_Response *response =
		MHD_create_response_from_buffer(bytes, text, MHD_RESPMEM_MUST_FREE);

	if (response)
		MHD_add_response_header(response, "Content-Type",
					"text/plain; version=0.0.4; charset=utf-8");
	else
		free(text);
	return response;
}

static void forget_last(struct metrics *m)
{
	if (m->last)
		MHD_destroy_response(m->last);
	m->last = NULL;
}

static enum MHD_Result reply(struct metrics *m, struct MHD_Connection *connection, unsigned status,
			     char *text, size_t bytes)
{
	struct MHD_Response *response = respond_with(text, bytes);
	enum MHD_Result rc;

	if (!response)
		return MHD_NO;
	rc = MHD_queue_response(connection, status, response);
	if (status != 200 || m->open_count <= CROWD) {
		MHD_destroy_response(response);
		return rc;
	}
	forget_last(m);
	m->last = response;
	m->last_ns = cli_now_ns();
	return rc;
}

static enum MHD_Result answer(void *arg, struct MHD_Connection *connection, const char *url,
			      const char *method, const char *version, const char *data,
			      size_t *data_bytes, void **state)
{
	struct metrics *m = arg;
	char *text = NULL;
	size_t bytes = 0;
	unsigned status = 200;
	FILE *out;
	int rc;

	(void)version, (void)data;
	if (!*state) { /* only the headers have come */
		*state = m;
		return MHD_YES;
	}
	if (*data_bytes) { /* nothing is answered before it has all come */
		*data_bytes = 0;
		return MHD_YES;
	}
	if (m->last && m->open_count > CROWD && cli_now_ns() < m->last_ns + CROWD_NS &&
	    !strcmp(method, "GET") && !strcmp(url, "/metrics"))
		return MHD_queue_response(connection, 200, m->last);
	out = open_memstream(&text, &bytes);
	if (!out)
		return MHD_NO;
	if (strcmp(method, "GET") != 0) {
		status = 405;
		fputs("only GET is answered\n", out);
	} else if (strcmp(url, "/metrics") != 0) {
		status = 404;
		fputs("see /metrics\n", out);
	} else if ((rc = top_find_bus(m->cli)) < 0 || (rc = put_all(m->cli->bus, out)) != 0) {
		status = 503;
		fprintf(out, "looking at the bus: %s\n", shmq_strerror(rc));
	}
	fclose(out);
	return reply(m, connection, status, text, bytes);
}

static int is_loopback(const struct sockaddr *address)
{
	const struct sockaddr_in *v4 = (const void *)address;
	const struct sockaddr_in6 *v6 = (const void *)address;

	return address->sa_family == AF_INET ? ntohl(v4->sin_addr.s_addr) >> 24 == 127 :
					       IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
}

/* Prints where; a socket or -errno. */
static int listen_tcp(const char *text)
{
	char host[64], port[16] = "";
	const char *colon = strrchr(text, ':');
	size_t brackets = text[0] == '[';
	struct addrinfo hints = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
				  .ai_socktype = SOCK_STREAM };
	struct addrinfo *found;
	struct sockaddr_storage got;
	char *rest;
	socklen_t len = sizeof(got);
	int sock, one = 1, rc = 0;

	if (!colon || (size_t)(colon - text) >= sizeof(host) || !colon[1])
		opts_fail(&cmd_metrics, "--listen takes 127.0.0.1:PORT, [::1]:PORT or unix:PATH");
	snprintf(host, sizeof(host), "%.*s", (int)((size_t)(colon - text) - 2 * brackets),
		 text + brackets);
	/* What is no port of 16 bits is not cut to one. */
	if (strtoul(colon + 1, &rest, 10) > UINT16_MAX || *rest ||
	    getaddrinfo(host, colon + 1, &hints, &found))
		opts_fail(&cmd_metrics, "--listen takes 127.0.0.1:PORT, [::1]:PORT or unix:PATH");
	if (!is_loopback(found->ai_addr))
		opts_fail(&cmd_metrics, "--listen takes addresses of this machine only "
					"(hint: 127.0.0.1:PORT, or a proxy before it)");
	sock = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (sock >= 0)
		setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (sock < 0 || bind(sock, found->ai_addr, found->ai_addrlen) || listen(sock, 16) ||
	    getsockname(sock, (struct sockaddr *)&got, &len))
		rc = -errno;
	freeaddrinfo(found);
	if (rc == 0) {
		getnameinfo((struct sockaddr *)&got, len, NULL, 0, port, sizeof(port),
			    NI_NUMERICSERV);
		printf(brackets ? "http://[%s]:%s/metrics\n" : "http://%s:%s/metrics\n", host,
		       port);
		return sock;
	}
	if (sock >= 0)
		close(sock);
	return rc;
}

/* The directory that PATH is in; to be freed. */
static char *directory_of(const char *path)
{
	const char *slash = strrchr(path, '/');
	char *directory = cli_strdup(slash ? path : ".");

	if (slash)
		directory[slash == path ? 1 : slash - path] = '\0';
	return directory;
}

/* Between the look at what is there and the call of listen(2) nobody else looks.  Who
 * keeps it locked for a second is somebody else, and not waited for.  The lock, -1 where
 * the directory cannot be read. */
static int lock_directory(const char *path)
{
	char *directory = directory_of(path);
	int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC), tries = 100;

	free(directory);
	while (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) && --tries)
		poll(NULL, 0, 10);
	return fd;
}

/* One that was left by a process that died is taken over; nothing else is. */
static int listen_unix(const char *path, struct stat *own)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int sock, lock, rc = 0;
	struct stat st;
	mode_t mask;

	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	strcpy(address.sun_path, path);
	sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return -errno;
	lock = lock_directory(path);
	if (!lstat(path, &st) && S_ISSOCK(st.st_mode) &&
	    connect(sock, (struct sockaddr *)&address, sizeof(address)) && errno == ECONNREFUSED)
		unlink(path);
	mask = umask(0177);
	if (bind(sock, (struct sockaddr *)&address, sizeof(address)) || listen(sock, 16) ||
	    lstat(path, own))
		rc = -errno;
	umask(mask);
	if (lock >= 0)
		close(lock);
	if (rc == 0) {
		printf("unix:%s\n", path);
		return sock;
	}
	close(sock);
	return rc;
}

/* Somebody may have removed it, and another one listen there. */
static void remove_own(const char *path, const struct stat *own)
{
	struct stat st;

	if (!lstat(path, &st) && st.st_dev == own->st_dev && st.st_ino == own->st_ino)
		unlink(path);
}

/* One that asks byte by byte is never idle.  Whoever comes makes room. */
static void come_or_gone(void *arg, struct MHD_Connection *connection, void **state,
			 enum MHD_ConnectionNotificationCode code)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct metrics *m = arg;
	int64_t now_ns = cli_now_ns();
	unsigned i, n = 0;

	(void)state;
	for (i = 0; i < m->open_count; i++)
		if (m->open[i].sock != info->connect_fd)
			m->open[n++] = m->open[i];
	m->open_count = n;
	if (code == MHD_CONNECTION_NOTIFY_CLOSED || n == CONNECTIONS)
		return;
	for (i = 0; i < n; i++)
		if (n - i >= CONNECTIONS_KEPT || now_ns > m->open[i].since_ns + PATIENCE_NS)
			shutdown(m->open[i].sock, SHUT_RDWR);
	m->open[n].sock = info->connect_fd;
	m->open[m->open_count++].since_ns = now_ns;
}

/* Who connects may send anything.  From here on this process makes the calls that it
 * needs, reads below /proc alone, and removes its own socket.  0, also where the kernel
 * has no such thing; or -errno. */
static int confine(const char *socket)
{
	char *directory = socket ? directory_of(socket) : NULL;
	const char *own = directory;
	int rc;

	rc = sandbox_limit_files(&own, own != NULL, "/proc");
	if (rc == 0 || rc == -ENOSYS)
		rc = sandbox_enter(SANDBOX_METRICS);
	free(directory);
	return rc == -ENOSYS ? 0 : rc;
}

static int serve(struct metrics *m)
{
	int is_unix = !strncmp(m->listen, "unix:", 5);
	struct stat own;
	int sock = is_unix ? listen_unix(m->listen + 5, &own) : listen_tcp(m->listen);
	struct MHD_Daemon *server;
	sigset_t all, old;
	int rc;

	if (sock < 0)
		return out_fail(NULL, sock, "listening at", m->listen,
				"another process may be there; choose another address");
	sig_catch(NULL);
	out_flush();
	rc = confine(is_unix ? m->listen + 5 : NULL);
	if (rc) {
		close(sock);
		return out_fail(NULL, rc, "limiting what can be done by", m->listen, NULL);
	}
	/* Signals are for this thread. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	server = MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL, 0, NULL, NULL,
				  answer, m, MHD_OPTION_LISTEN_SOCKET, sock,
				  MHD_OPTION_CONNECTION_TIMEOUT, IDLE_S,
				  MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS,
				  MHD_OPTION_NOTIFY_CONNECTION, come_or_gone, m, MHD_OPTION_END);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (!server) {
		close(sock);
		return out_fail(NULL, -EMFILE, "serving at", m->listen, NULL);
	}
	while (!sig_stopped())
		sig_sleep_until(cli_now_ns() + INT64_C(3600000000000));
	MHD_stop_daemon(server);
	forget_last(m);
	if (is_unix)
		remove_own(m->listen + 5, &own);
	return CLI_OK;
}

static int run(struct cli *cli, int argc, char **argv)
{
	struct metrics m = { .cli = cli };
	const struct opt_group groups[] = {
		{ "Options", options, ARRAY_COUNT(options), &m },
		{ "Options of all commands", opts_shared, opts_shared_count, cli },
	};
	int first = opts_parse(&cmd_metrics, OPTS_PERMUTE, argc, argv, groups, ARRAY_COUNT(groups));
	int code, rc;

	if (argc > first)
		opts_fail(&cmd_metrics, "metrics takes options only, not \"%s\"", argv[first]);
	code = cli_open(cli);
	if (code != CLI_OK)
		return code;
	if (m.listen)
		return serve(&m);
	rc = put_all(cli->bus, stdout);
	return rc ? out_fail(cli, rc, "looking at bus", shmq_bus_name(cli->bus), NULL) : CLI_OK;
}

const struct command cmd_metrics = {
	"metrics",
	"[OPTION]...",
	"The bus in numbers, as text for Prometheus, once or over HTTP",
	"Reads shared memory in a process of its own: neither the supervisor nor anybody\n"
	"else waits for who asks.  Prints where it listens, and ends by a signal.  Of more than\n"
	"32 that are connected the oldest are cut off.\n",
	"shmq metrics | grep shmq_topic_lag\n"
	"shmq metrics --listen 127.0.0.1:9464\n",
	run,
};
