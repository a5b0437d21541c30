"""Makes a server of Python's ``ssl`` renew tickets as it resumes (RFC 5077, section 3.3).

Python has no call for it, so OpenSSL's is called. Each ticket has a number, which is the name of
its key: so a server sees which one it is shown.
"""

from __future__ import annotations

import _ssl
import ctypes
import os
import ssl
from typing import Any

__all__ = ["Tickets"]

SSL_CTRL_SET_TLSEXT_TICKET_KEY_CB = 72
NAME_SIZE, IV_SIZE = 16, 16
FAILED, ACCEPTED, ACCEPTED_AND_RENEWED = -1, 1, 2

#: The arguments: SSL, the name of the key, the IV, the cipher's and the MAC's context, and whether
#: a ticket is made.
Callback = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_int,
)


class Tickets:
    """The tickets of one server."""

    def __init__(self, context: ssl.SSLContext) -> None:
        #: Whether a ticket that is shown is renewed.
        self.renews = True
        #: The numbers of the tickets that were shown, in their order.
        self.shown: list[int] = []
        self._made = 0
        self._cipher_key, self._mac_key = os.urandom(32), os.urandom(32)
        # Whose names are found in it: those of libssl and of libcrypto, which it has loaded.
        self._library = ctypes.CDLL(_ssl.__file__)
        self._callback = Callback(self._answer)
        # An SSLContext begins with what every object has; then comes OpenSSL's.
        native = ctypes.c_void_p.from_address(id(context) + object.__basicsize__)
        number = ctypes.c_int(SSL_CTRL_SET_TLSEXT_TICKET_KEY_CB)
        assert self._library.SSL_CTX_callback_ctrl(native, number, self._callback) == 1

    def _answer(self, _: int, name: int, iv: int, cipher: int, mac: int, makes: int) -> int:
        """What OpenSSL calls for each ticket that is made or shown."""
        if makes:
            self._made += 1
            ctypes.memmove(name, self._made.to_bytes(NAME_SIZE, "big"), NAME_SIZE)
            ctypes.memmove(iv, os.urandom(IV_SIZE), IV_SIZE)
        else:
            self.shown.append(int.from_bytes(ctypes.string_at(name, NAME_SIZE), "big"))
        call = self._library
        ready = self._set_keys(
            call.EVP_EncryptInit_ex if makes else call.EVP_DecryptInit_ex, iv, cipher, mac
        )
        if not ready:
            return FAILED
        return ACCEPTED_AND_RENEWED if self.renews and not makes else ACCEPTED

    def _set_keys(self, init: Any, iv: int, cipher: int, mac: int) -> bool:
        """The keys are always the same: the numbers are what the tests look at."""
        pointer = ctypes.c_void_p
        aes, sha = self._library.EVP_aes_256_cbc, self._library.EVP_sha256
        aes.restype = sha.restype = pointer
        key = self._mac_key
        return bool(
            init(pointer(cipher), pointer(aes()), None, self._cipher_key, pointer(iv)) == 1
            and self._library.HMAC_Init_ex(pointer(mac), key, len(key), pointer(sha()), None) == 1
        )
