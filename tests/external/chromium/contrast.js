// The visible texts of the page whose contrast with the background is below 4.5 to 1 (WCAG 2.2, 1.4.3), by their text.
(() => {
  const linear = (part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4);
  const luminance = ([red, green, blue]) => 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue);
  const colour = (text) => text.match(/[\d.]+/g).map(Number);
  const background = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const found = colour(getComputedStyle(each).backgroundColor);
      if ((found[3] ?? 1) > 0.99) return found;
    }
    return [255, 255, 255];
  };
  const weak = {};
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const {parentElement: element, textContent} = walker.currentNode;
    if (!textContent.trim() || !element.checkVisibility() || element.closest(".unseen, option")) continue;
    const style = getComputedStyle(element);
    const shades = [luminance(colour(element instanceof SVGElement ? style.fill : style.color)), luminance(background(element))];
    const ratio = (Math.max(...shades) + 0.05) / (Math.min(...shades) + 0.05);
    if (ratio < 4.5) weak[textContent.trim().slice(0, 40)] = Number(ratio.toFixed(2));
  }
  return weak;
})()
