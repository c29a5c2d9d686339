/*
 * Any bytes as an answer of a worker. First byte: bit 0 it answers a HEAD, the rest the size of the
 * first piece; the message follows. The properties are in message.h.
 */
#include <stdint.h>

#include "tests/fuzz/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static struct http_head h;
	struct message_mode m = {.response = true};

	if (n < 2 || n > MESSAGE_MAX)
		return 0;
	m.to_head = (data[0] & 1) != 0;
	m.first = (size_t)(data[0] >> 1) + 1;
	(void)message_check(&h, &m, (const char *)data + 1, n - 1);
	return 0;
}
