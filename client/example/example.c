/* Streams an answer: example ADDRESS PROMPT
 * cc example.c $(pkg-config --cflags --libs coterie-client) */
#include <coterie_client.h>

#include <stdio.h>
#include <string.h>

static int print_piece(void *user, const coterie_client_delta_t *delta)
{
    (void)user;
    fwrite(delta->text, 1, delta->text_bytes, stdout);
    return fflush(stdout); /* other than 0 cancels */
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: example ADDRESS PROMPT\n");
        return 2;
    }
    coterie_client_options_t options = COTERIE_CLIENT_OPTIONS_INIT;
    options.address = argv[1];
    coterie_client_t *client = NULL;
    int status = coterie_client_connect(&options, &client);

    coterie_client_request_t request;
    coterie_client_request_init(&request);
    request.text = argv[2];
    request.text_bytes = strlen(argv[2]);
    request.set = COTERIE_CLIENT_MAX_TOKENS;
    request.max_tokens = 64;
    request.on_delta = print_piece;
    coterie_client_result_t result = {.size = sizeof(result)};
    if (status == 0) status = coterie_client_generate(client, &request, &result);

    if (status != 0)
        fprintf(stderr, "%s\n", coterie_client_error());
    else
        fprintf(stderr, "\nfinish: %s\n", coterie_client_finish_name(result.finish));
    coterie_client_close(client);
    return status != 0;
}
