"""The contract with other services: payloads and the client that sends them."""
