"use strict";

const input = document.querySelector("input");
let socket;

function show(text) {
  const line = document.createElement("li");
  line.textContent = text;
  document.querySelector("ul").prepend(line);
}

function connect() {
  socket = new WebSocket(location.href.replace(/^http/, "ws"));
  socket.onmessage = (event) => show(event.data);
  socket.onclose = () => setTimeout(connect, 1000);
}

document.querySelector("form").onsubmit = (event) => {
  event.preventDefault();
  if (socket.readyState === WebSocket.OPEN && input.value) {
    socket.send(input.value);
    input.value = "";
  }
};

connect();
