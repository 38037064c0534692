"""The operators' console: Flower as it is, with rooms of our own in its navigation.

    server.py       starts it        application.py  Flower's application with our handlers
    access.py       who may do what  guard.py        what every handler keeps to
    room.py         bases of pages, data and actions; a room is one module in `rooms/`, one
                    template, and one line in `rooms.ROOMS`
    reading.py      panels that a slow store cannot hold up

Invariant: nothing is shown to whom the settings do not name, save on loopback, where it may be
looked at; nothing is changed but by an operator, with a token against forged requests, and every
change leaves an entry in the audit log. Facts are read by `samplemind`, which the command line asks
too: the console computes none.
"""
