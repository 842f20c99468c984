/* SPDX-License-Identifier: MIT
 *
 * A listener: callbacks on a thread of the library's, until one of them has had enough.
 *
 *   cc -o listener listener.c $(pkg-config --cflags --libs shmq)
 *   ./listener
 */
#include <shmq.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>

static sem_t done;

/* Never two at a time; the message is good until it returns. */
static int on_message(void *arg, shmq_sub *sub, const struct shmq_msg *msg)
{
	int is_last = msg->len == 4 && !memcmp(msg->data, "stop", 4);

	(void)arg;
	printf("%s: %.*s\n", shmq_sub_topic(sub), (int)msg->len, (const char *)msg->data);
	if (is_last)
		sem_post(&done);
	return is_last;
}

static void on_error(void *arg, shmq_sub *sub, int error, const struct shmq_msg *msg)
{
	(void)arg;
	fprintf(stderr, "%s: %s, %llu lost\n", shmq_sub_topic(sub), shmq_strerror(error),
		(unsigned long long)msg->lost);
	sem_post(&done);
}

static int run(shmq_bus *bus, shmq_sub *sub)
{
	const struct shmq_listener_options options = { .size = sizeof(options),
						       .message = on_message,
						       .error = on_error };
	static const char *const words[] = { "one", "two", "stop", "not heard" };
	shmq_listener *listener;
	shmq_pub *pub;
	int i, error = shmq_listener_start(sub, &options, &listener);

	if (error)
		return error;
	error = shmq_pub_open(bus, "words", NULL, &pub);
	for (i = 0; !error && i < 4; i++)
		error = shmq_publish(pub, words[i], strlen(words[i]));
	if (!error)
		sem_wait(&done);
	/* None is called any more once this returns. */
	shmq_listener_stop(listener);
	return error;
}

int main(void)
{
	struct shmq_bus_options opts = { .size = sizeof(opts), .start = SHMQ_START_ON_DEMAND };
	shmq_bus *bus = NULL;
	shmq_sub *sub;
	int error = shmq_bus_open(NULL, &opts, &bus);

	sem_init(&done, 0, 0);
	if (!error)
		error = shmq_topic_create(bus, "words", NULL, NULL);
	if (!error)
		error = shmq_sub_open(bus, "words", NULL, &sub);
	if (!error)
		error = run(bus, sub);
	if (error)
		fprintf(stderr, "listener: %s: %s\n", shmq_strerror(error), shmq_bus_error(bus));
	shmq_bus_close(bus);
	return error != 0;
}
