/* A self-signed certificate for localhost and 127.0.0.1, made for one test. */
#ifndef TESTS_CERTIFICATE_H
#define TESTS_CERTIFICATE_H

/* Writes two PEM files; fails the test if that does not work. */
void certificate_make(const char *cert_path, const char *key_path);

#endif
