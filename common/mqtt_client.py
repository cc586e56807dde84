"""paho's client with a bound on what it receives: nothing is read of a packet that is too large.

paho reads the length of a packet, then buffers whatever that says, up to 256 MB. MQTT 5 lets a client announce how
much it takes (Maximum Packet Size); 3.1.1 does not, and a broker may ignore it. So the length is compared before the
rest is read, and the connection ends where it is too large.
"""

import socket
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

_TYPE_AND_QOS, _PUBLISH_QOS_2 = 0xF6, 0x34
"""Of a packet's first byte (MQTT 5, sections 2.1.2 and 3.3.1)."""


class MqttClient(mqtt.Client):
    """A client that takes packets of at most `packet_bytes`, by QoS 0 and 1, and makes one connection.

    `keeps_session`: whether the broker is to keep the session of an earlier connection, and this one's, by 3.1.1.
    """

    def __init__(self, client_id: str, packet_bytes: int, *, is_v5: bool, keeps_session: bool = False) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=None if is_v5 else not keeps_session,
            protocol=mqtt.MQTTv5 if is_v5 else mqtt.MQTTv311,
            reconnect_on_failure=False,
        )
        self.refusal = ""
        """Why the connection was ended: what the broker sent that is not taken."""
        self._packet_bytes = packet_bytes
        self._is_v5 = is_v5
        self.on_socket_open = _send_at_once

    def connect_properties(self) -> Properties | None:
        """Return what CONNECT announces; None by 3.1.1, which has no properties."""
        if not self._is_v5:
            return None
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho leaves it untyped
        properties.MaximumPacketSize = self._packet_bytes
        return properties

    def _sock_recv(self, bufsize: int) -> bytes:
        """Read at most `bufsize` bytes, which is what the packet lacks: first one by one, then the whole rest.

        Raises OSError, which paho takes for the end of the connection.
        """
        if bufsize > self._packet_bytes:
            taken = f"at most {self._packet_bytes} are taken: find who publishes that, or retained it"
            self.refusal = f"the broker sent a packet of {bufsize} bytes; {taken}"
            raise OSError(self.refusal)
        return super()._sock_recv(bufsize)

    def _packet_handle(self) -> MQTTErrorCode:
        """Handle a packet that is here, unless it is a message by QoS 2.

        We subscribe by less, and paho keeps such a message until the broker releases it, which may be never.
        """
        if self._in_packet["command"] & _TYPE_AND_QOS == _PUBLISH_QOS_2:
            self.refusal = "the broker sent a message by QoS 2, to which nobody subscribed"
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        return super()._packet_handle()


def _send_at_once(_client: mqtt.Client, _userdata: Any, line: Any) -> None:
    """Turn off Nagle's algorithm, which holds a publish back for 40 ms behind an unanswered acknowledgement."""
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
