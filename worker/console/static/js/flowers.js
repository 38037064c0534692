// Flower's own buttons act at once; here whoever presses one that changes something is asked first.
"use strict";

(() => {
  const questions = {
    "worker-shutdown": "Shut this worker down? Its jobs go back to the queue.",
    "worker-pool-restart": "Restart this worker's processes?",
    "worker-pool-grow": "Add processes to this worker?",
    "worker-pool-shrink": "Take processes from this worker?",
    "worker-pool-autoscale": "Change how this worker scales?",
    "worker-add-consumer": "Let this worker take another queue?",
    "task-revoke": "Revoke this job?",
    "task-terminate": "Terminate this job, whatever it is doing?",
  };

  function questionOf(button) {
    if (button.id.startsWith("worker-cancel-consumer-")) {
      return "Let this worker take this queue no more?";
    }
    return questions[button.id] || (button.closest("#limits-table") && "Change this limit?");
  }

  // Before any handler of Flower's: those sit on the buttons themselves.
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    const question = button && questionOf(button);
    if (question && !window.confirm(question)) {
      event.preventDefault();
      event.stopImmediatePropagation();
    }
  }, true);
})();
