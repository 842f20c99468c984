/* SPDX-License-Identifier: MIT
 *
 * create: topics come and go by request to the supervisor.
 */
#include "bus.h"

#include <string.h>

static void from_wire(const struct proto_reply *r, struct shmq_plan *out)
{
	memset(out, 0, sizeof(*out));
	out->ring_bytes = r->plan.ring_bytes;
	out->control_bytes = r->plan.control_bytes;
	out->growth_bytes = r->plan.growth_bytes;
	out->arena_bytes = r->plan.arena_bytes;
	out->depth = r->plan.depth;
	out->inline_bytes = r->plan.inline_bytes;
	out->page_bytes = r->plan.page_bytes;
	out->node = r->plan.node;
	out->available_bytes = r->plan.available_bytes;
	memcpy(out->source, r->plan.source, sizeof(out->source));
	out->source[sizeof(out->source) - 1] = 0;
	memcpy(out->note, r->plan.note, sizeof(r->plan.note));
	out->note[sizeof(r->plan.note) - 1] = 0;
}

static int ask(struct shmq_bus *bus, enum proto_op op, const char *name,
	       const struct shmq_topic_options *options, struct shmq_plan *out)
{
	struct shmq__why *why = shmq__bus_why();
	struct shmq_topic_options asked = { 0 }, o;
	struct proto_request req;
	struct proto_reply reply;
	int error = bus_check(bus);

	if (!error)
		error = shmq__name_check_topic(name, SHMQ__NAME_USER, why);
	if (!error)
		error = shmq__options_copy(&asked, options, sizeof(asked), why);
	o = asked; /* checked here, but what is left open is for the supervisor to fill */
	if (!error)
		error = shmq__layout_defaults(&o, why->text, sizeof(why->text));
	if (!error && asked.log_dir && strlen(asked.log_dir) >= sizeof(req.log_dir))
		error = shmq__fail(why, SHMQ_EOPTION, "log_dir: longer than %zu bytes",
				   sizeof(req.log_dir) - 1);
	if (error)
		return error;
	shmq__bus_prepare(bus, &req, op, name);
	proto_put_options(&asked, &req.create);
	if (asked.log_dir)
		memcpy(req.log_dir, asked.log_dir, strlen(asked.log_dir));
	error = shmq__bus_request(bus, &req, &reply, why);
	if (!error && out)
		from_wire(&reply, out);
	return error;
}

SHMQ_EXPORT int shmq_topic_plan(shmq_bus *bus, const char *name,
				const struct shmq_topic_options *options, struct shmq_plan *out)
{
	return ask(bus, PROTO_PLAN, name, options, out);
}

SHMQ_EXPORT int shmq_topic_create(shmq_bus *bus, const char *name,
				  const struct shmq_topic_options *options, struct shmq_plan *plan)
{
	return ask(bus, PROTO_CREATE, name, options, plan);
}

SHMQ_EXPORT int shmq_topic_remove(shmq_bus *bus, const char *name, unsigned flags)
{
	struct shmq__why *why = shmq__bus_why();
	struct proto_request req;
	struct proto_reply reply;
	int error = bus_check(bus);

	if (!error)
		error = shmq__name_check_topic(name, SHMQ__NAME_USER, why);
	if (!error && (flags & ~SHMQ_FORCE))
		error = shmq__fail(why, SHMQ_EOPTION, "remove: unknown flag");
	if (error)
		return error;
	shmq__bus_prepare(bus, &req, PROTO_REMOVE, name);
	req.remove.flags = flags;
	return shmq__bus_request(bus, &req, &reply, why);
}

SHMQ_EXPORT int shmq_topic_move(shmq_bus *bus, const char *name)
{
	struct shmq__why *why = shmq__bus_why();
	struct proto_request req;
	struct proto_reply reply;
	int error = bus_check(bus);

	if (!error)
		error = shmq__name_check_topic(name, SHMQ__NAME_USER, why);
	if (error)
		return error;
	shmq__bus_prepare(bus, &req, PROTO_MOVE, name);
	return shmq__bus_request(bus, &req, &reply, why);
}
