/* SPDX-License-Identifier: MIT
 *
 * Request and reply: a pricing service answers, refuses, and dies over a question;
 * whoever asked is told of each.
 *
 *   cc -o request_reply request_reply.c $(pkg-config --cflags --libs shmq)
 *   ./request_reply
 */
#include <shmq.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define TIMEOUT_NS INT64_C(10000000000)

static int is(const struct shmq_request *request, const char *symbol)
{
	return request->msg.len == strlen(symbol) &&
	       !memcmp(request->msg.data, symbol, request->msg.len);
}

static int serve(shmq_bus *bus)
{
	struct shmq_msg price = { .data = "189.70", .len = 6 };
	shmq_responder *responder;
	struct shmq_request request;
	int error = shmq_responder_open(bus, "price", NULL, &responder);

	while (!error && !(error = shmq_responder_receive(responder, &request, SHMQ_FOREVER))) {
		if (is(&request, "AAPL"))
			error = shmq_responder_reply(responder, &request, &price);
		else if (is(&request, "XXXX"))
			error = shmq_responder_refuse(responder, &request, "no such symbol");
		else
			raise(SIGKILL);
	}
	return error;
}

static void ask(shmq_requester *requester, const char *symbol)
{
	struct shmq_msg msg = { .data = symbol, .len = strlen(symbol) };
	struct shmq_reply reply;
	int error = shmq_requester_call(requester, &msg, &reply, TIMEOUT_NS);

	printf("%s: %.*s (%s)\n", symbol, reply.msg.len ? (int)reply.msg.len : 1,
	       reply.msg.len ? (const char *)reply.msg.data : "-",
	       error ? shmq_strerror(error) : "replied");
}

static int run(shmq_bus *bus)
{
	shmq_requester *requester;
	int error = shmq_requester_open(bus, "price", NULL, &requester);

	if (error)
		return error;
	ask(requester, "AAPL");
	ask(requester, "XXXX");
	ask(requester, "BOOM");
	shmq_requester_close(requester);
	return shmq_topic_remove(bus, "price", 0);
}

int main(void)
{
	struct shmq_bus_options opts = { .size = sizeof(opts), .start = SHMQ_START_ON_DEMAND };
	struct shmq_topic_options shared = { .size = sizeof(shared), .mode = SHMQ_SHARED };
	int ready[2], error;
	shmq_bus *bus = NULL;
	pid_t child;

	/* A process has its own bus: so the fork comes first. */
	if (pipe(ready) || (child = fork()) < 0)
		return 1;
	if (!child) {
		error = read(ready[0], &error, 1) != 1 || shmq_bus_open(NULL, &opts, &bus);
		return error || serve(bus);
	}
	error = shmq_bus_open(NULL, &opts, &bus);
	if (!error)
		error = shmq_topic_create(bus, "price", &shared, NULL);
	if (!error && write(ready[1], "", 1) == 1)
		error = run(bus);
	if (error)
		fprintf(stderr, "request_reply: %s: %s\n", shmq_strerror(error),
			shmq_bus_error(bus));
	shmq_bus_close(bus);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	return error != 0;
}
