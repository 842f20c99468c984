/* SPDX-License-Identifier: MIT */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

struct client {
	struct shmq_client_info info;
	const char *holds; /* a topic in which others wait for it, NULL none */
	unsigned more;     /* other such topics */
	json_t *all;       /* of them */
};

struct clients {
	struct client *all;
	size_t count, room;
	int json;
};

static const struct opt options[] = {
	{ "json", .kind = OPT_SET, OPT_AT(struct clients, json), .value = 1,
	  .help = "print one JSON array, one object per client" },
};

static int keep_client(void *arg, const struct shmq_client_info *info)
{
	struct clients *to = arg;

	to->all = cli_grow(to->all, to->count, &to->room, sizeof(*to->all));
	to->all[to->count++] = (struct client){ .info = *info, .all = json_array() };
	return 0;
}

static void note_hold(struct clients *clients, int client, const char *topic)
{
	size_t i;

	for (i = 0; i < clients->count; i++) {
		struct client *c = &clients->all[i];

		if ((int)c->info.client_id != client)
			continue;
		if (c->holds)
			c->more++;
		else
			c->holds = topic;
		json_array_append_new(c->all, json_string(topic));
	}
}

/* Who waits for a subscriber that stands at a claim waits for the claim. */
static void find_holds(shmq_bus *bus, struct clients *clients, const struct topics *topics)
{
	size_t i;

	for (i = 0; i < topics->count; i++) {
		const struct shmq_topic_info *t = &topics->all[i];
		struct holder holder;

		/* One that goes meanwhile is held by nobody. */
		if (t->ended || !t->publishers || holder_find(bus, t, &holder) < 0)
			continue;
		if (holder.claimer.client >= 0)
			note_hold(clients, holder.claimer.client, t->name);
		else if (holder.holds_back)
			note_hold(clients, holder.slowest.client, t->name);
	}
}

static void print_table(const struct clients *clients)
{
	static const char *const heads[] = {
		">CLIENT", ">PID",      ">UID",  "NAME",    ">TOPICS", ">PUBS",  ">SUBS",
		">SENT",   ">RECEIVED", ">LOST", ">ARENAS", ">PAGES",  ">RINGS", "HOLDS BACK",
	};
	struct table table = { .heads = heads, .columns = ARRAY_COUNT(heads) };
	size_t i;

	for (i = 0; i < clients->count; i++) {
		const struct client *c = &clients->all[i];

		table_add(&table, "%u", c->info.client_id);
		table_add(&table, "%d", (int)c->info.pid);
		table_add(&table, "%u", (unsigned)c->info.uid);
		table_add(&table, "%s%s", c->info.name, c->info.is_dead ? " (dead)" : "");
		table_add(&table, "%u", c->info.topics);
		table_add(&table, "%u", c->info.publishers);
		table_add(&table, "%u", c->info.subscribers);
		table_add(&table, "%s", units_count(c->info.sent).s);
		table_add(&table, "%s", units_count(c->info.received).s);
		table_add(&table, "%s", units_count(c->info.lost).s);
		table_add(&table, "%s", units_size(c->info.arena_bytes).s);
		table_add(&table, "%s", units_size(c->info.page_bytes).s);
		table_add(&table, "%s", units_size(c->info.ring_bytes).s);
		if (c->more)
			table_add(&table, "%s and %u more", c->holds, c->more);
		else
			table_add(&table, "%s", c->holds ? c->holds : "-");
	}
	table_print(&table, "");
	table_clear(&table);
}

static void print_json(const struct clients *clients)
{
	json_t *array = json_array();
	size_t i;

	for (i = 0; i < clients->count; i++) {
		const struct shmq_client_info *c = &clients->all[i].info;
		json_t *object = json_object();

		json_put_u64(object, "client", c->client_id);
		json_put_u64(object, "pid", (uint64_t)c->pid);
		json_put_u64(object, "uid", c->uid);
		json_put_text(object, "name", c->name);
		json_put(object, "dead", json_boolean(c->is_dead));
		json_put(object, "own", json_boolean(c->is_own));
		json_put_u64(object, "topics", c->topics);
		json_put_u64(object, "publishers", c->publishers);
		json_put_u64(object, "subscribers", c->subscribers);
		json_put_u64(object, "patterns", c->patterns);
		json_put_u64(object, "sent", c->sent);
		json_put_u64(object, "received", c->received);
		json_put_u64(object, "lost", c->lost);
		json_put_u64(object, "arena_bytes", c->arena_bytes);
		json_put_u64(object, "page_bytes", c->page_bytes);
		json_put_u64(object, "ring_bytes", c->ring_bytes);
		json_put(object, "holds_back", json_incref(clients->all[i].all));
		json_array_append_new(array, object);
	}
	json_print(array);
}

static int run(struct cli *cli, int argc, char **argv)
{
	struct clients clients = { 0 };
	const struct opt_group groups[] = {
		{ "Options", options, ARRAY_COUNT(options), &clients },
		{ "Options of all commands", opts_shared, opts_shared_count, cli },
	};
	int first = opts_parse(&cmd_clients, OPTS_PERMUTE, argc, argv, groups, ARRAY_COUNT(groups));
	struct topics topics = { 0 };
	size_t i;
	int rc;

	if (first != argc)
		opts_fail(&cmd_clients, "clients takes no operand");
	rc = cli_open(cli);
	if (rc != CLI_OK)
		return rc;
	rc = shmq_client_each(cli->bus, keep_client, &clients);
	if (rc == 0)
		rc = topics_collect(cli->bus, NULL, &topics);
	if (rc == 0)
		find_holds(cli->bus, &clients, &topics);
	if (rc == 0 && clients.json)
		print_json(&clients);
	else if (rc == 0)
		print_table(&clients);
	for (i = 0; i < clients.count; i++)
		json_decref(clients.all[i].all);
	free(clients.all);
	topics_clear(&topics);
	return rc == 0 ? CLI_OK :
			 out_fail(cli, rc, "listing the clients of bus", shmq_bus_name(cli->bus),
				  NULL);
}

const struct command cmd_clients = {
	"clients",
	"[OPTION]...",
	"List the processes that are attached",
	"Each with the topics it has open, its handles there and what went through them, the\n"
	"shared memory that is its own and that of its topics' rings, and the topics whose\n"
	"publishers wait for it, or that it holds inside a claim.\n",
	"shmq clients\n",
	run,
};
